"""A destroyed VM that holds a volume: told by a dry run, an issue by a run, closed by the run that no longer finds it."""

from __future__ import annotations

import pytest

from database.tables import oma_events, oma_issues
from oma.domain.errors import Code, Refused
from oma.domain.jobs import CleanupRequest
from oma.domain.states import JobState
from oma.service.cleanup import plan_cleanup
from oma.service.queries import get_vm
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage

pytestmark = pytest.mark.rule("7-destroyed-holds")


async def destroyed(stage: Stage) -> BrokenVm:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.world.change_vm(vm.test_vm_id, state="Destroyed")
    return vm


async def test_a_dry_run_only_says_so(stage: Stage) -> None:
    vm = await destroyed(stage)
    with pytest.raises(Refused) as refused:
        await plan_cleanup(stage.deps, CleanupRequest(vm.name, dry_run=True))
    assert refused.value.code is Code.STATE_UNKNOWN
    assert "issue_ids" not in refused.value.fields
    assert await stage.rows(oma_issues) == []


async def test_a_run_opens_one_critical_issue_and_changes_nothing_else(stage: Stage) -> None:
    vm = await destroyed(stage)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await stage.submit(vm)
        assert refused.value.code is Code.STATE_UNKNOWN
    (issue,) = await stage.rows(oma_issues)
    assert refused.value.fields["issue_ids"] == [issue["id"]]
    assert (issue["state"], issue["severity"], issue["kind"]) == ("open", "critical", "destroyed_vm_holds_volume")
    assert issue["cause"] == f"{vm.context_id}/{vm.test_vm_id}/destroyed"
    assert issue["target"]["volume_ids"] == vm.volume_ids
    assert issue["guidance"][0].endswith(f"cs recoverVirtualMachine id={vm.test_vm_id}")
    assert stage.world.orders == []
    view = await get_vm(stage.deps, vm.name, None)
    assert not view.need.recommended
    assert view.need.why.startswith("A destroyed VM holds one of its volumes")


async def test_it_closes_itself_once_the_vm_is_recovered(stage: Stage) -> None:
    vm = await destroyed(stage)
    with pytest.raises(Refused):
        await stage.submit(vm)
    stage.world.change_vm(vm.test_vm_id, state="Stopped")
    await plan_cleanup(stage.deps, CleanupRequest(vm.name, dry_run=True))
    assert [row["state"] for row in await stage.rows(oma_issues)] == ["open"], "a dry run writes nothing"
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED
    (issue,) = await stage.rows(oma_issues)
    assert (issue["state"], issue["resolution"]) == ("resolved", "MOOT")
    assert set(issue["evidence"]["resolved_by"]["volumes"]) == set(vm.volume_ids)
    types = [row["type"] for row in await stage.rows(oma_events, context_id=vm.context_id)]
    assert types.index("issue_opened") < types.index("issue_resolved") < types.index("job_queued")


async def test_an_answer_that_is_missing_closes_nothing(stage: Stage) -> None:
    vm = await destroyed(stage)
    with pytest.raises(Refused):
        await stage.submit(vm)
    stage.world.change_vm(vm.test_vm_id, state="Stopped")
    stage.volumes.weather.silent_for.add("scan_devices")
    with pytest.raises(Refused):
        await stage.submit(vm)
    assert [row["state"] for row in await stage.rows(oma_issues)] == ["open"]


async def test_a_volume_that_went_with_the_vm_closes_nothing(stage: Stage) -> None:
    vm = await destroyed(stage)
    with pytest.raises(Refused):
        await stage.submit(vm)
    stage.world.forget_volume(vm.volume_ids[0])
    stage.world.change_volume(vm.volume_ids[1], vm_id=None)
    with pytest.raises(Refused) as refused:
        await stage.submit(vm)
    assert "no longer lists" in refused.value.sentence
    assert [row["state"] for row in await stage.rows(oma_issues)] == ["open"]
