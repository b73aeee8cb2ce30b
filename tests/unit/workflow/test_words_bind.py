"""What a person said binds: it is part of the plan that is confirmed, and passes only what it was said for."""

from __future__ import annotations

import pytest

from database.tables import failover_jobs, oma_leaks, vm_replication_contexts
from oma.domain.errors import Code, Refused
from oma.domain.jobs import CleanupRequest
from oma.domain.states import JobState, Phase
from oma.domain.words import SILENT, Words
from oma.service.cleanup import plan_cleanup
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage
from tests.unit.workflow.test_forcing import FORCE, break_for_ever, fail_once, mend
from tests.unit.workflow.test_runner_in_use import live

pytestmark = pytest.mark.rule("8-force")

REASON = "the failover is given up"


async def digest(stage: Stage, vm: BrokenVm, words: Words) -> str:
    return (await plan_cleanup(stage.deps, CleanupRequest(vm.name, dry_run=True, words=words))).digest


@pytest.mark.parametrize(("shown", "said"), [(SILENT, FORCE), (FORCE, SILENT)])
async def test_a_plan_is_confirmed_with_the_words_that_it_was_shown_under(
    stage: Stage, shown: Words, said: Words
) -> None:
    vm = await stage.add()
    await fail_once(stage, vm)
    confirmed = await digest(stage, vm, shown)
    with pytest.raises(Refused) as raised:
        await stage.submit(vm, words=said, expect_plan=confirmed)
    assert raised.value.code is Code.PLAN_STALE
    assert "What a person insists on was" in raised.value.sentence
    assert "force" in raised.value.sentence
    assert stage.world.orders == []


async def test_another_reason_for_the_same_words_is_the_same_plan(stage: Stage) -> None:
    vm = await stage.add()
    await fail_once(stage, vm)
    confirmed = await digest(stage, vm, FORCE)
    job = await stage.clean(vm, words=Words(force=True, reason="another reason"), expect_plan=confirmed)
    assert job.state is JobState.COMPLETED
    assert job.plan.words == ("force",)


async def test_force_for_the_vm_of_a_live_failover_passes_no_failure(stage: Stage) -> None:
    """It needed no failed run; what a run could not do is passed only by who has seen it fail."""
    vm = await live(stage)
    (row,) = await stage.rows(failover_jobs, vm_context_id=vm.context_id)
    break_for_ever(stage, "deleteSnapshot")
    job = await stage.submit(vm, words=Words(force=True, destination_vm_id=row["destination_vm_id"], reason=REASON))
    await stage.work()
    job = await stage.job(job.id)
    assert job.state is JobState.PARKED
    assert await stage.rows(oma_leaks) == []
    assert not any("passed by force: " in one and "snapshot" in one for one in job.plan.risks)


PARTIAL = (Phase.ANALYZE, Phase.DETACH, Phase.SNAPSHOTS)


async def test_what_a_partial_run_left_behind_is_named_by_it_and_by_the_run_that_ends_it(stage: Stage) -> None:
    vm = await stage.add()
    await fail_once(stage, vm)
    stage.world.add_fault(FaultKind.JOB_FAIL, "deleteSnapshot", times=1)
    job = await stage.clean(vm, words=FORCE, phases=PARTIAL)
    assert job.result is not None
    (leak,) = job.result["leaks"]
    kept = leak["target"]["snapshot_id"]
    (context,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    assert f"cs deleteSnapshot id={kept}" in job.result["next"]
    assert kept in context["last_operation_summary"]["next"]
    mend(stage)

    job = await stage.clean(vm)

    assert job.state is JobState.COMPLETED
    assert job.result is not None
    assert f"cs deleteSnapshot id={kept}" in job.result["next"]
