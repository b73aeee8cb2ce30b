"""A person says of a volume that it is lost; a fresh look at CloudStack and at the OMA confirms it."""

from __future__ import annotations

import asyncio

from oma.domain.actions import Target
from oma.domain.errors import Code, OmaError
from oma.domain.issues import Issue
from oma.domain.resolving import Resolution
from oma.ports import UpstreamError
from oma.service.deps import Deps


async def confirm_gone(deps: Deps, issue: Issue) -> tuple[Target, str]:
    """What is given up, and what was seen. Raises `state_unknown` in silence, and `resolution_contradicted`."""
    gone = Target.from_json(issue.target)
    volume_id, name = gone.get_volume_id(), gone.volume_name or gone.get_volume_id()
    try:
        async with asyncio.timeout(deps.observe_timeout_s):
            listed, scan = await asyncio.gather(deps.cloud.list_volumes([volume_id]), deps.volumes.scan_devices())
    except (TimeoutError, UpstreamError) as error:
        raise OmaError(
            Code.STATE_UNKNOWN,
            f"Whether {name} is lost can't be told now ({error or 'no answer'}); nothing was written.",
            vm_name=issue.vm_name,
            job_id=issue.job_id,
            next="See that CloudStack and the Volume Daemon answer (oma doctor), then say it again.",
        ) from error
    if listed or scan.shows(volume_id):
        said = f"CloudStack lists {name}" if listed else f"The OMA still shows the device of {name}"
        step = "If it is to be brought home, say ROLLED_BACK."
        if not listed:
            step = f"Take the device off the OMA first, then say RESYNC. {step}"
        raise OmaError(
            Code.RESOLUTION_CONTRADICTED,
            f"{said}; it is not lost yet.",
            vm_name=issue.vm_name,
            job_id=issue.job_id,
            resolution=Resolution.RESYNC.value,
            evidence={"listed": bool(listed), "device_on_oma": scan.shows(volume_id)},
            guidance=list(issue.guidance),
            next=step,
        )
    return gone, f"CloudStack no longer lists {name}. It stays away unless it is found again and is copied whole."
