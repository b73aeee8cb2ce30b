"""CloudStack on virtual time: the simulator's state machine behind the real client, from the signed call upwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from oma.adapters.cloudstack import CloudStackCloud
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.errors import CloudStackError, ErrorKind
from ossea.jobs import JobPoller
from ossea.reading import Reader
from ossea.simulator.model import ApiError
from ossea.simulator.model.errors import unauthorized
from ossea.submitting import Submitter
from ossea.transport import Transport
from ossea.wire import reads_only
from tests.fakes.world import FakeWorld
from tests.simulation.network import Network, Refused, Silence
from tests.simulation.virtual_time import Life, VirtualClock

ENDPOINT = Endpoint("http://cloudstack.invalid/client/api", "key", "secret")
TIMEOUT_S = 10.0
POLL_MIN_S, POLL_MAX_S = 0.5, 15.0
VOLUME_DAEMON = "volume daemon"
"""The name of its life; what it sends was asked of it before, and then it counts as sent."""
PROBE_KEY = "oma-probe"
"""The tag of `Submitter.honours_custom_job_id`."""


class CloudServer:
    """The management server in front of the model: access by `expires`, times of being down, a clock of its own."""

    def __init__(self, world: FakeWorld, clock: VirtualClock) -> None:
        self.world = world
        self.clock = clock
        self.is_up = True

    async def answer(self, command: str, params: Mapping[str, str]) -> tuple[dict[str, Any], datetime]:
        """The envelope's content and the `Date`; raises `ApiError`."""
        now = self.clock.now()
        expires = datetime.fromisoformat(params["expires"])
        if expires < now:
            raise unauthorized()
        given = {
            name: value
            for name, value in params.items()
            if name not in {"expires", "signatureVersion"} and value != "false"
        }
        self.world.advance()
        if reads_only(command):
            return self.world.ask(command, **given), now
        if PROBE_KEY in given.values():
            # Asks whether ids of ours are taken, and touches nothing.
            return self.world.model.submit(command, given, self.world.clock.unix(), faults=()), now
        request_id = given.pop("customjobid", None)
        own_id = request_id is not None and self.world.model.settings.custom_job_id
        job_id = self.world.order(command, request_id or "", own_id=own_id, **given)
        return {"jobid": job_id}, now


class _Transport(Transport):
    """The real one down to the signature; what would go over the wire goes over the network of the world."""

    def __init__(
        self, server: CloudServer, network: Network, life: Life, clock: VirtualClock, expires_s: float
    ) -> None:
        self._server, self._network, self._life, self._wall = server, network, life, clock
        super().__init__(ENDPOINT, timeout_s=TIMEOUT_S, expires_s=expires_s, now=clock.now, monotonic=clock.monotonic)

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def _exchange(self, command: str, signed: Mapping[str, Any]) -> dict[str, Any]:
        params = {name: _text(value) for name, value in signed.items() if value is not None}
        began = self._wall.monotonic()
        if self._life.name != VOLUME_DAEMON and "customjobid" in params:
            self._server.world.sent[params["customjobid"]] = self._server.clock.unix()
        try:
            answer, date = await self._network.exchange(
                self._life,
                command,
                lambda: self._server.answer(command, params),
                lambda: self._server.is_up,
                TIMEOUT_S,
            )
        except ApiError as error:
            self._take_date(self._server.clock.now(), began)
            envelope = {"errorcode": error.errorcode, "cserrorcode": error.cserrorcode, "errortext": error.text}
            raise self._build_answer_error(command, error.errorcode, envelope) from None
        except Refused:
            raise CloudStackError(ErrorKind.NOT_SENT, command, "cannot connect to cloudstack.invalid") from None
        except Silence:
            raise CloudStackError(ErrorKind.NO_ANSWER, command, "the connection was cut") from None
        self._take_date(date, began)
        return dict(answer)

    def _take_date(self, date: datetime, began: float) -> None:
        self.clock.sample(format_datetime(date, usegmt=True), self._wall.monotonic() - began)


class SimulatedCloudStack(CloudStack):
    """The real client over that transport."""

    def __init__(
        self,
        server: CloudServer,
        network: Network,
        life: Life,
        clock: VirtualClock,
        *,
        expires_s: float,
        new_id: Callable[[], str],
    ) -> None:
        self._transport = _Transport(server, network, life, clock, expires_s)
        self._reader = Reader(self._transport)
        self._jobs = JobPoller(self._reader, poll_min_s=POLL_MIN_S, poll_max_s=POLL_MAX_S, monotonic=clock.monotonic)
        self._submitter = Submitter(self._transport, self._reader, self._jobs, new_id)


def build_cloud(client: CloudStack) -> CloudStackCloud:
    return CloudStackCloud(client)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
