"""`oma jobs cancel` and `oma undo`."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from oma.domain.states import JobState
from tests.unit.cli.server import serve_script
from tests.unit.cli.test_following import Script, document
from tests.unit.gui import samples


@pytest.mark.parametrize(
    ("state", "code"), [(JobState.CANCELLED, 0), (JobState.PARKED, 0), (JobState.FAILED, 1), (JobState.RUNNING, 0)]
)
def test_it_is_asked_for_with_its_reason_and_followed_to_where_the_job_stops(oma_at, state: JobState, code: int):
    asked: list[dict[str, object]] = []
    script = Script([(1, f"job_{state.value}", "It stopped.")], states=(state,))

    async def cancel(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response(document(samples.job(state=JobState.RUNNING)), status=202)

    with serve_script(("POST", "/api/v1/jobs/{id}/cancel", cancel), *script.routes()) as url:
        wait = ("--no-wait",) if state is JobState.RUNNING else ()
        printed = oma_at(url, "jobs", "cancel", "job-1", "--reason", "wrong VM", "--json", *wait)
    assert printed.code == code
    assert asked == [{"reason": "wrong VM"}]
    assert json.loads(printed.out)["status"] == state.value


@pytest.mark.parametrize(("state", "code"), [(JobState.CANCELLED, 0), (JobState.PARKED, 5), (JobState.FAILED, 1)])
def test_undo_ends_well_only_where_the_job_was_undone(oma_at, state: JobState, code: int):
    asked: list[dict[str, object]] = []
    script = Script([(1, f"job_{state.value}", "It stopped.")], states=(JobState.RUNNING, state))

    async def cancel(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response(document(samples.job(state=JobState.RUNNING)), status=202)

    with serve_script(("POST", "/api/v1/jobs/{id}/cancel", cancel), *script.routes()) as url:
        printed = oma_at(url, "undo", "job-1", "--reason", "wrong VM", "--json")
    assert (printed.code, asked) == (code, [{"reason": "wrong VM"}])
    assert json.loads(printed.out)["status"] == state.value


def test_undo_asks_nothing_of_a_job_that_has_begun_to_revert(oma_at):
    script = Script(states=(JobState.COMPLETED,))
    with serve_script(*script.routes()) as url:
        printed = oma_at(url, "undo", "job-1")
    assert printed.code == 1
    assert "nothing is undone" in printed.err
    assert "oma jobs show job-1" in printed.err
