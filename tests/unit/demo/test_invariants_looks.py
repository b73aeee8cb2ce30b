"""Each look of the checker by itself: one damage to a good history, and the sentence that names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oma.demo.invariants import Call, History, Violation, judge, judge_rest
from oma.domain.actions import ActionKind
from oma.domain.resolving import RESOLVED
from oma.domain.states import ActionState, JobState, Phase
from ossea.simulator.model.witness import Sighting
from tests.fakes.invariants import build_history, only_of
from tests.fakes.stage import open_stage
from tests.unit.demo.damage import (
    ELSEWHERE,
    first,
    with_call,
    with_end,
    with_job,
    with_one_more,
    with_sighting,
    with_unreadable,
    with_volume,
)

WINDOW_S = 300.0


def names(found: list[Violation]) -> set[str]:
    return {one.invariant for one in found}


def says(history: History, words: str) -> bool:
    return any(words in one.sentence for one in judge(history))


def with_stranger(history: History, command: str, **fields: Any) -> History:
    """One more call that nobody journaled."""
    stranger = Call(len(history.calls) + 1, history.calls[-1].at, command, ELSEWHERE, {}, "j", Sighting())
    return replace(history, calls=[*history.calls, replace(stranger, **fields)])


def with_tag(history: History, resource_id: str, request_id: str) -> History:
    seen, params = Sighting(resource_ids=(resource_id,)), {"tags[0].key": "oma-epoch"}
    return with_stranger(history, "createTags", request_id=request_id, params=params, seen=seen)


def with_rows(history: History, table: str, **fields: Any) -> History:
    more: dict[str, Any] = {table: [{**row, **fields} for row in getattr(history.journal, table)]}
    return replace(history, journal=replace(history.journal, **more))


def with_actions(history: History, kind: ActionKind, **fields: Any) -> History:
    actions = {one.id: replace(one, **fields) if one.kind is kind else one for one in history.journal.actions.values()}
    return replace(history, journal=replace(history.journal, actions=actions))


def released(history: History, attached_after_s: float) -> History:
    """The first revert proved nothing, a person's word let its disk go home, and so long after its end it went."""
    revert, attach = first(history, "revertSnapshot"), first(history, "attachVolume")
    assert revert.volume_id == attach.volume_id
    by_word = with_actions(
        with_end(history, "revertSnapshot", succeeded=False),
        ActionKind.REVERT_SNAPSHOT,
        state=ActionState.SKIPPED,
        evidence={RESOLVED: {"resolution": "RESYNC", "notes": "n"}},
    )
    ended = by_word.ends[revert.job_id or ""].at
    return with_call(replace(by_word, window_s=WINDOW_S), "attachVolume", at=ended + attached_after_s)


class TestWhatWasSent:
    def test_an_unjournaled_call_is_seen_although_it_is_foreign(self, good: History) -> None:
        seen = Sighting(vm_id=ELSEWHERE)
        damaged = with_stranger(good, "stopVirtualMachine", seen=seen)
        found = names(judge(only_of(damaged, good.vms[0].context_id)))
        assert {"no-foreign-vm", "journaled"} <= found

    def test_another_vms_call_is_its_own_affair(self, good: History) -> None:
        nobody = only_of(replace(good, vms=good.vms), "ctx-other")
        assert [one for one in nobody.calls if nobody.journal.find_action(one.request_id)] == []

    def test_the_epochs_tag_goes_on_the_oma_under_no_id_and_nowhere_else(self, good: History) -> None:
        assert judge(with_tag(good, good.oma_vm_id, "")) == []
        assert names(judge(with_tag(good, good.oma_vm_id, ELSEWHERE))) == {"journaled"}
        assert names(judge(with_tag(good, ELSEWHERE, ""))) == {"journaled", "no-foreign-vm"}

    def test_a_vm_is_destroyed_when_it_has_stopped_and_not_before(self, good: History) -> None:
        assert says(with_sighting(good, "destroyVirtualMachine", vm_state="Stopping"), "while it was Stopping")

    def test_what_came_before_its_intent_is_in_no_journal(self, good: History) -> None:
        assert all(call.after_seq is not None for call in good.calls)
        assert says(with_call(good, "revertSnapshot", after_seq=1, at=0.0), "came before attempt 1")

    def test_what_a_restored_copy_does_not_know_is_judged_all_the_same(self, good: History) -> None:
        lost = with_call(good, "revertSnapshot", request_id=ELSEWHERE)
        assert "journaled" in names(judge(lost))
        known = replace(lost, forgotten=frozenset({ELSEWHERE}))
        assert judge(known) == []
        held = with_sighting(known, "revertSnapshot", shown_on=(good.oma_vm_id,))
        assert names(judge(held)) == {"no-revert-while-held"}

    def test_no_snapshot_goes_while_a_disk_that_left_was_not_reverted_whatever_was_planned(self, good: History) -> None:
        revert = first(good, "revertSnapshot")
        without = replace(good, calls=[one for one in good.calls if one is not revert])
        (job,) = good.journal.jobs.values()
        plan = replace(
            job.plan, actions=tuple(one for one in job.plan.actions if one.kind is not ActionKind.REVERT_SNAPSHOT)
        )
        assert says(with_job(without, plan=plan), f"was deleted before {revert.volume_id} was reverted")


class TestTheWindow:
    def test_a_word_shortens_it_by_nothing(self, good: History) -> None:
        assert says(released(good, WINDOW_S - 10.0), "attached by a word 10 s before the window")
        assert not says(released(good, WINDOW_S + 1.0), "before the window")

    def test_while_the_job_runs_nothing_is_attached(self, good: History) -> None:
        assert says(released(good, -0.5), "attached by a word while")

    def test_it_passes_before_the_revert_is_made_again(self, good: History) -> None:
        failed = replace(with_end(good, "revertSnapshot", succeeded=False), window_s=WINDOW_S)
        ended = failed.ends[first(good, "revertSnapshot").job_id or ""].at
        early = with_one_more(failed, "revertSnapshot", at=ended + WINDOW_S - 1.0)
        late = with_one_more(failed, "revertSnapshot", at=ended + WINDOW_S + 1.0)
        assert says(early, "reverted again 1 s before the window")
        assert not says(late, "before the window")


class TestAtRest:
    @pytest.mark.parametrize(
        ("table", "fields", "words"),
        [
            ("failovers", {"ossea_snapshot_id": "left"}, "still tracks left"),
            ("mappings", {"ossea_snapshot_id": "left"}, "still tracks left"),
            ("volumes", {"snapshot_id": "left"}, "still tracks left"),
            ("disks", {"disk_change_id": "older"}, "is 'older'"),
        ],
    )
    def test_every_row_of_a_completed_run_is_reset(
        self, good: History, table: str, fields: dict[str, Any], words: str
    ) -> None:
        assert says(with_rows(good, table, **fields), words)

    def test_the_context_has_no_current_job(self, good: History) -> None:
        contexts = {key: {**row, "current_job_id": "somebody's"} for key, row in good.journal.contexts.items()}
        assert says(replace(good, journal=replace(good.journal, contexts=contexts)), "current job is somebody's")

    def test_a_volume_that_is_gone_is_not_home(self, good: History) -> None:
        volume_id = good.vms[0].volumes[0].volume_id
        left = {key: place for key, place in good.rest.volumes.items() if key != volume_id}
        gone = replace(good, rest=replace(good.rest, volumes=left))
        assert says(gone, "is not there any more")
        assert judge(replace(gone, disturbed=frozenset({volume_id}))) == []

    def test_a_snapshot_that_was_tracked_goes_whatever_was_planned(self, good: History) -> None:
        snapshot_id = good.vms[0].volumes[0].snapshot_ids[0]
        (job,) = good.journal.jobs.values()
        plan = replace(job.plan, volumes=tuple(replace(one, snapshot_id=None) for one in job.plan.volumes))
        kept = with_job(replace(good, rest=replace(good.rest, snapshot_ids=frozenset({snapshot_id}))), plan=plan)
        assert says(kept, f"snapshot {snapshot_id} is still there")

    def test_a_run_that_failed_has_sent_no_revert_whatever_it_believes(self, good: History) -> None:
        assert says(with_job(good, state=JobState.FAILED, reverted=False), "a revert was sent")

    def test_unproven_content_is_exported_by_no_word_of_the_journal(self, good: History) -> None:
        parked = with_job(with_end(good, "revertSnapshot", succeeded=False), state=JobState.PARKED)
        assert says(parked, "with an export and unproven content")
        assert not says(with_job(good, state=JobState.PARKED), "unproven content")

    def test_a_row_that_cannot_be_read_is_parked_by_an_issue(self, good: History) -> None:
        assert says(with_unreadable(good, state="queued"), "and it is queued")
        assert says(with_unreadable(good, state="parked"), "parked without an open issue")
        assert judge(with_unreadable(good, state="failed")) == []

    def test_one_issue_about_the_database_names_all_that_was_in_flight(self, good: History) -> None:
        parked = with_actions(
            with_job(good, state=JobState.PARKED), ActionKind.RESET_RECORDS, state=ActionState.STARTED
        )
        assert says(parked, "parked without an open issue")
        issue = {"job_id": None, "state": "open", "kind": "database_older_than_world", "resolution": None}
        common = replace(parked, journal=replace(parked.journal, issues=[{**issue, "id": "i", "action_id": None}]))
        assert not says(common, "parked without an open issue")
        assert not says(common, "no open issue names")

    def test_an_issue_of_a_run_names_its_actions_one_by_one(self, good: History) -> None:
        (job,) = good.journal.jobs.values()
        (reset,) = good.journal.actions_of(job.id, ActionKind.RESET_RECORDS)
        parked = with_actions(
            with_job(good, state=JobState.PARKED), ActionKind.RESET_RECORDS, state=ActionState.STARTED
        )
        issue = {"job_id": job.id, "state": "open", "kind": "restored_database", "id": "i", "resolution": None}
        for evidence, named in (({}, False), ({"action_ids": [reset.id]}, True)):
            row = {**issue, "action_id": None, "target": {}, "evidence": evidence}
            one = replace(parked, journal=replace(parked.journal, issues=[row]))
            assert says(one, f"no open issue names the uncertain reset_records {reset.id}") is not named

    async def test_the_newest_run_is_the_one_that_was_queued_last(self) -> None:
        """A clock that was set back makes it look older."""
        async with open_stage(speed=400) as stage:
            vm = await stage.add()
            await stage.clean(vm, phases=(Phase.ANALYZE, Phase.DETACH))
            await stage.sql("UPDATE oma_jobs SET created_at = '2099-01-01 00:00:00.000000'")
            last = await stage.clean(vm)
            history = await build_history(stage)
        assert history.journal.jobs_of(vm.context_id)[-1].id == last.id

    def test_a_rest_on_the_way_is_judged_by_how_the_run_was_left_alone(self, good: History) -> None:
        late = with_one_more(good, "detachVolume", after_seq=10_000)
        assert judge_rest(late) == []
        assert names(judge_rest(with_volume(late, content="something else"))) == {"completed-is-whole"}
