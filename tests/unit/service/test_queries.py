"""Lists, pages and streams."""

from __future__ import annotations

import asyncio

import pytest

from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.ports import ContextFilter
from oma.service.queries import check_health, get_job_view, list_vms, stream_events
from tests.fakes.scenario import OMA, BrokenVm, Disk
from tests.fakes.stage import Stage

HOME = Disk(place=OMA, snapshot=False, dirty=False, mode="oma")


async def _add_vms(stage: Stage, needing: int, healthy: int) -> None:
    """Every third one or so needs a clean-up; by name they are mixed."""
    for number in range(needing):
        await stage.add(BrokenVm(f"vm-{number * 3:03d}-broken", test_vm_state="Stopped"))
    for number in range(healthy):
        await stage.add(
            BrokenVm(
                f"vm-{number * 2 + 1:03d}-healthy",
                disks=[HOME],
                status="ready_for_failover",
                test_vm_state=None,
                failover_status="failed",
                joblog_status="failed",
                steps=(),
            )
        )


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("needs", [True, False, None])
async def test_pages_hold_at_most_the_limit_and_together_everything_once(
    stage: Stage, limit: int, needs: bool | None
) -> None:
    await _add_vms(stage, needing=5, healthy=7)
    names: list[str] = []
    cursor = None
    while True:
        page = await list_vms(stage.deps, ContextFilter(), needs=needs, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        names += [view.records.context.vm_name for view in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    expected = [vm.name for vm in stage.vms.values() if needs is None or needs is vm.name.endswith("broken")]
    assert names == sorted(expected)


async def test_a_vm_that_needs_it_says_why(stage: Stage) -> None:
    await _add_vms(stage, needing=1, healthy=1)
    page = await list_vms(stage.deps, ContextFilter(), needs=True, limit=50, cursor=None)
    (view,) = page.items
    assert view.need.recommended
    assert "is open" in view.need.why


async def test_a_stream_begins_with_what_is_journaled_and_goes_on_live_each_once_in_order(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    seen: list[Event] = []

    async def follow() -> None:
        async for event in stream_events(stage.deps, job.id, 0):
            seen.append(event)
            if event.type is EventType.JOB_COMPLETED:
                return

    following = asyncio.create_task(follow())
    await stage.work()
    await following
    journaled = await stage.deps.jobs.list_events(0, job.id, 500)
    assert [event.seq for event in seen] == [event.seq for event in journaled if event.seq <= seen[-1].seq]
    assert {event.data["kind"] for event in journaled[len(seen) :]} == {"clear_marker"}, "nobody waits for it"
    assert seen[0].type is EventType.JOB_QUEUED


async def test_a_stream_taken_up_again_gives_only_what_came_after(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.clean(vm)
    journaled = await stage.deps.jobs.list_events(0, job.id, 500)
    after = journaled[9].seq
    stream = stream_events(stage.deps, job.id, after)
    assert [(await anext(stream)).seq for _ in journaled[10:]] == [event.seq for event in journaled[10:]]
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_stream_of_one_job_is_silent_about_others_and_ends_with_the_daemon(stage: Stage) -> None:
    first, second = await stage.add(BrokenVm("one")), await stage.add(BrokenVm("two"))
    job = await stage.submit(first)
    seen: list[Event] = []

    async def follow() -> None:
        seen.extend([event async for event in stream_events(stage.deps, job.id, 0)])

    following = asyncio.create_task(follow())
    await stage.submit(second)
    await asyncio.gather(stage.work(), stage.work())
    stage.deps.bus.close()
    await following
    assert {event.job_id for event in seen} == {job.id}
    assert EventType.JOB_COMPLETED in {event.type for event in seen}


async def test_a_job_view_has_all_its_parts(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.clean(vm)
    view = await get_job_view(stage.deps, job.id)
    assert (len(view.steps), len(view.actions), view.issues) == (5, 13, ())
    with pytest.raises(OmaError) as raised:
        await get_job_view(stage.deps, "no-such-job")
    assert raised.value.code is Code.JOB_NOT_FOUND


async def test_health_names_each_dependency_and_what_it_said(stage: Stage) -> None:
    stage.cloud.weather.silent = True
    health = {one.name: one for one in await check_health(stage.deps)}
    assert (health["cloudstack"].healthy, health["volume_daemon"].healthy) == (False, True)
    assert health["cloudstack"].sentence == "CloudStack: the connection was cut"
