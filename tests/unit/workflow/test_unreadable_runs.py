"""A parked run whose rows can't be read: whatever is asked of it, the answer names the word that ends it."""

from __future__ import annotations

import pytest

from database.tables import oma_audit
from oma.domain.actions import ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.issues import UNBELIEVABLE
from oma.domain.resolving import Resolution
from oma.domain.states import JobState
from oma.domain.words import Words
from oma.service.control import cancel_job, resume_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.unit.workflow.test_ended_for_good import LATER, TORN, UNREADABLE, Clocks, clock, say, torn

__all__ = ["clock"]
pytestmark = pytest.mark.rule("5-unknown-revert")
ASKED = {
    "cancel": lambda stage, job: cancel_job(stage.deps, job.id, "Wrong VM.", actor="eva"),
    "resume": lambda stage, job: resume_job(stage.deps, job.id, Words(reason="Go on."), actor="eva"),
}


@pytest.mark.parametrize("damage", UNREADABLE)
@pytest.mark.parametrize("asked", ["cancel", "resume"])
async def test_where_its_rows_cannot_be_read_the_answer_says_how_to_end_it(
    stage: Stage, damage: str, asked: str
) -> None:
    vm, job = await torn(stage, TORN[damage])
    with pytest.raises(OmaError) as raised:
        await ASKED[asked](stage, job)
    (issue,) = [one for one in await stage.open_issues(job.id) if one["kind"] == UNBELIEVABLE]
    assert (raised.value.code, raised.value.fields["vm_name"]) == (Code.NEEDS_RESOLUTION, vm.name)
    assert f"oma audit fix -c {issue['id']} --resolution RESYNC" in raised.value.fields["next"]
    refused = [row for row in await stage.rows(oma_audit, job_id=job.id) if row["action"] == "refused"]
    assert [(row["actor"], row["decision"]) for row in refused] == [("eva", "needs_resolution")]


@pytest.mark.parametrize("damage", UNREADABLE)
async def test_rows_that_were_torn_after_it_had_parked_for_another_reason_have_the_same_door(
    stage: Stage, clock: Clocks, damage: str
) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=431, errortext="No.")
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    await stage.sql(TORN[damage])
    kind = ActionKind.REVERT_SNAPSHOT.value
    with pytest.raises(OmaError) as raised:
        await say(stage, job, Resolution.APPLIED, kind)
    assert raised.value.code is Code.RESOLUTION_CONTRADICTED
    with pytest.raises(OmaError) as raised:
        await cancel_job(stage.deps, job.id, None)
    assert raised.value.code is Code.NEEDS_RESOLUTION
    assert "--resolution RESYNC" in raised.value.fields["next"]
    clock.ahead = LATER
    assert (await say(stage, job, Resolution.RESYNC, kind)).waits
    clock.ahead = 2 * LATER
    assert (await say(stage, job, Resolution.RESYNC, kind)).settled.job_state is JobState.FAILED
