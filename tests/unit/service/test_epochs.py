"""6-safety 6, *A database older than the world*: nothing is recovered, all in flight is parked, runs are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from database.tables import oma_audit, oma_epochs, oma_issues, oma_sequences
from oma.domain.epochs import Epoch, EpochState, Older, Witness, find_older
from oma.domain.errors import Code, OmaError
from oma.domain.issues import Issue
from oma.domain.resolving import Resolution
from oma.domain.states import JobState
from oma.domain.words import Words
from oma.ports import Fault
from oma.service.control import cancel_job, resume_job
from oma.service.epochs import TAG_PAUSE_S, build_older_issue
from oma.service.issues import Said, resolve_issue
from oma.service.queries import check_health
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import open_stage
from tests.unit.service.epoch_bench import Bench

pytestmark = pytest.mark.rule("6-epochs")
STATE = EpochState(number=5, written=40)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_stage() as stage:
        yield Bench.over(stage)


@pytest.mark.parametrize(
    ("seen", "older"),
    [
        (Witness("x", "oma:5", 40), False),
        (Witness("x", "oma:4"), False),
        (Witness("x", "oma:6"), True),
        (Witness("x", "other:1"), True),
        (Witness("x", "rubbish"), True),
        (Witness("x", ""), True),
        (Witness("x", "oma:5", 41), True),
    ],
)
def test_a_witness_that_is_ahead_or_a_strangers_makes_the_database_older(seen: Witness, older: bool) -> None:
    assert (find_older(STATE, "oma", [seen]) is not None) is older


def test_what_a_person_has_accepted_is_heard_no_more() -> None:
    accepted = replace(STATE, accepted=("other:9",))
    assert find_older(accepted, "oma", [Witness("x", "other:9")]) is None
    assert find_older(accepted, "oma", [Witness("x", "other:10")]) is not None


@pytest.mark.parametrize("text", ["oma:7", "a.b-c:0"])
def test_an_epoch_is_read_as_it_is_written(text: str) -> None:
    epoch = Epoch.parse(text)
    assert epoch is not None
    assert epoch.text == text


@pytest.mark.parametrize("text", ["7", ":7", "oma:", "oma:x", "oma:-1", "oma:²", "oma:" + 30 * "9"])
def test_anything_else_is_no_epoch(text: str) -> None:
    assert Epoch.parse(text) is None


async def test_each_start_raises_the_epoch_in_all_three_places(bench: Bench) -> None:
    await bench.stage.add()
    first = bench.start()
    assert await first.run_once() == "Epoch oma:1 begins."
    assert first.is_open
    assert await first.run_once() is None, "only once per start"
    assert await bench.start().run_once() == "Epoch oma:2 begins."
    (row,) = await bench.stage.rows(oma_epochs)
    assert (row["epoch"], bench.note.noted, await bench.tag()) == (
        2,
        Witness("the state directory", "oma:2", 0),
        "oma:2",
    )


async def test_a_state_directory_that_is_ahead_parks_all_in_flight_under_one_issue(bench: Bench) -> None:
    stage = bench.stage
    one, two = await stage.add(BrokenVm("one")), await stage.add(BrokenVm("two"))
    await bench.start().run_once()
    begun, queued = await stage.submit(one), await stage.submit(two)
    await stage.claim()
    bench.note.noted = Witness("the state directory", "oma:7")
    keeper = bench.start()
    sentence = await keeper.run_once()
    assert sentence is not None
    assert "the state directory says oma:7" in sentence
    assert not keeper.is_open
    (issue,) = await stage.rows(oma_issues)
    for job_id in (begun.id, queued.id):
        job = await stage.job(job_id)
        assert (job.state, (job.error or {})["issue_id"]) == (JobState.PARKED, issue["id"])
    assert await stage.deps.journal.claim_job("test", 30) is None
    assert stage.commands() == []


async def test_runs_are_refused_until_a_person_accepts_and_then_go_on_one_by_one(bench: Bench) -> None:
    stage = bench.stage
    one, two = await stage.add(BrokenVm("one")), await stage.add(BrokenVm("two"))
    await bench.start().run_once()
    parked = await stage.submit(one)
    await bench.start().run_once()
    await bench.restore(1)
    await bench.start().run_once()
    keeper = bench.start()
    assert "older than the world" in str(await keeper.run_once()), "a second start does not forget it"
    health = {one.name: one for one in await check_health(stage.deps)}
    assert not health["database"].healthy
    assert "older than the world" in health["database"].sentence
    for refused in (
        stage.submit(two),
        resume_job(stage.deps, parked.id, Words(resume=True)),
        cancel_job(stage.deps, parked.id, None),
    ):
        with pytest.raises(OmaError) as error:
            await refused
        assert error.value.code is Code.DATABASE_OLDER_THAN_WORLD
        assert "oma db accept-restore" in str(error.value.fields["next"])
    assert await bench.accept() == (2, 1)
    assert await keeper.run_once() == "Epoch oma:3 begins."
    assert (bench.note.written[-1], await bench.tag()) == ("oma:3", "oma:3")
    (common, own) = sorted(await stage.rows(oma_issues), key=lambda row: row["job_id"] is not None)
    assert (common["state"], common["resolution"], common["actor"]) == ("resolved", "ACCEPTED", "cli:tester")
    assert (own["state"], own["job_id"], own["kind"]) == ("open", parked.id, "restored_database")
    assert (await stage.clean(two)).state is JobState.COMPLETED
    assert (await stage.job(parked.id)).state is JobState.PARKED
    await resolve_issue(stage.deps, own["id"], Said(Resolution.ROLLED_BACK, "nothing was done since"))
    await stage.work()
    assert (await stage.check(parked.id)).state is JobState.COMPLETED
    assert [row["action"] for row in await stage.rows(oma_audit) if "database" in row["action"]] == ["database_older"]


async def test_leases_go_on_far_above_those_that_were_lost(bench: Bench) -> None:
    stage = bench.stage
    await stage.add()
    await bench.start().run_once()
    bench.note.noted = Witness("the state directory", "oma:1", 4711)
    await bench.start().run_once()
    await bench.accept()
    (row,) = [row for row in await stage.rows(oma_sequences) if row["name"] == "fence"]
    assert row["value"] >= 1_000_000


async def test_a_copy_of_the_same_start_is_known_by_what_was_written_since(bench: Bench) -> None:
    """It was made while the daemon ran: its epoch is the newest, but it has not seen the last events."""
    stage = bench.stage
    vm = await stage.add()
    keeper = bench.start()
    await keeper.run_once()
    await stage.clean(vm)
    await keeper.run_once()
    await stage.sql("DELETE FROM oma_events WHERE seq > 3")
    await stage.sql("UPDATE oma_sequences SET value = 3 WHERE name = 'events'")
    sentence = await bench.start().run_once()
    assert sentence is not None
    assert ", it only 3" in sentence
    assert not keeper.is_open or "older" in str(await keeper.run_once())
    assert not keeper.is_open, "the daemon that runs sees it too"


async def test_another_installations_tag_stops_everything(bench: Bench) -> None:
    await bench.stage.add()
    await bench.stage.cloud.put_epoch(bench.stage.world.oma_vm_id, "hamburg:1", None)
    keeper = bench.start()
    sentence = await keeper.run_once()
    assert sentence is not None
    assert "hamburg:1, which is another installation's" in sentence
    await bench.accept()
    assert await keeper.run_once() == "Epoch oma:2 begins."
    assert await bench.tag() == "oma:2"


async def test_while_cloudstack_is_silent_nothing_is_recovered(bench: Bench) -> None:
    await bench.stage.add()
    bench.stage.cloud.weather.lose_requests += ["find_epoch"]
    keeper = bench.start()
    sentence = await keeper.run_once()
    assert sentence is not None
    assert "nothing is recovered before" in sentence
    assert not keeper.is_open
    assert await keeper.run_once() == "Epoch oma:1 begins."


async def test_a_state_directory_that_cannot_be_used_is_said_and_the_tag_is_left(bench: Bench) -> None:
    await bench.stage.add()
    bench.note.broken = True
    sentence = await bench.start().run_once()
    assert sentence is not None
    assert sentence.startswith("Epoch oma:1 begins. The state directory can't be read: Permission denied.")
    await bench.restore(0)
    keeper = bench.start()
    await keeper.run_once()
    assert not keeper.is_open


async def test_there_is_nothing_to_accept_on_a_database_that_is_current(bench: Bench) -> None:
    with pytest.raises(OmaError) as error:
        await bench.accept()
    assert error.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize(
    ("fault", "code"), [(Fault.FAILED, "530"), (Fault.REFUSED, "401"), (Fault.REFUSED, "431"), (Fault.NO_ANSWER, "0")]
)
async def test_an_answer_that_is_not_a_ban_is_no_missing_witness(bench: Bench, fault: Fault, code: str) -> None:
    """A rebuilt appliance, its state directory gone: the tag is all that tells, and its first question fails."""
    stage = bench.stage
    await stage.add()
    await stage.cloud.put_epoch(stage.world.oma_vm_id, "oma:57", None)
    bench.answers |= dict.fromkeys(("find_epoch", "list_vms"), (fault, code, "not now"))
    keeper = bench.start()
    assert "nothing is recovered before" in str(await keeper.run_once())
    assert not keeper.is_open
    assert "says oma:57" in str(await keeper.run_once())
    assert await bench.tag() == "oma:57"


@pytest.mark.parametrize("code", ["401", "432", "531"])
async def test_a_role_that_may_not_list_tags_has_no_such_witness_and_writes_none(bench: Bench, code: str) -> None:
    stage = bench.stage
    await stage.add()
    await stage.cloud.put_epoch(stage.world.oma_vm_id, "oma:57", None)
    bench.answers["find_epoch"] = (Fault.REFUSED, code, "not for you")
    keeper = bench.start()
    assert "can't be read: not for you" in str(await keeper.run_once())
    assert keeper.is_open
    assert await keeper.run_once() is None, "it is said once"
    assert await bench.tag() == "oma:57", "what could not be compared is not written over"


async def test_two_daemons_that_start_at_once_do_not_make_the_database_older(bench: Bench) -> None:
    """The first raises the epoch and tags it while the second one's question is under way."""
    await bench.stage.add()
    gate = bench.stage.cloud.weather.gates["find_epoch"] = asyncio.Event()
    late = asyncio.create_task(bench.start().run_once())
    await bench.stage.cloud.weather.until_asked("find_epoch")
    del bench.stage.cloud.weather.gates["find_epoch"]
    assert await bench.start().run_once() == "Epoch oma:1 begins."
    gate.set()
    assert await late == "Epoch oma:2 begins."
    assert await bench.tag() == "oma:2"


async def test_a_slow_tag_never_goes_backwards(bench: Bench) -> None:
    await bench.stage.add()
    slow = bench.start()
    gate = bench.stage.cloud.weather.gates["put_epoch"] = asyncio.Event()
    late = asyncio.create_task(slow.run_once())
    await bench.stage.cloud.weather.until_asked("put_epoch")
    del bench.stage.cloud.weather.gates["put_epoch"]
    assert await bench.start().run_once() == "Epoch oma:2 begins."
    gate.set()
    await late
    assert await bench.tag() == "oma:2"
    await slow.run_once()
    assert await bench.tag() == "oma:2"
    assert slow.is_open


async def test_a_tag_that_could_not_be_put_is_put_a_little_later(bench: Bench) -> None:
    await bench.stage.add()
    bench.answers["put_epoch"] = (Fault.FAILED, "530", "restarting")
    keeper = bench.start()
    assert "is not tagged with it: restarting" in str(await keeper.run_once())
    assert await keeper.run_once() is None
    assert await bench.tag() is None, "CloudStack is not asked every two seconds for ever"
    bench.clock.ahead_s += TAG_PAUSE_S
    await keeper.run_once()
    assert await bench.tag() == "oma:1"


async def test_what_was_accepted_while_it_was_looked_at_is_not_marked_again(bench: Bench) -> None:
    await bench.stage.add()
    await bench.start().run_once()
    bench.note.noted = Witness("the state directory", "oma:7")
    await bench.start().run_once()
    before = await bench.epochs.read()
    await bench.accept()
    assert await bench.epochs.mark_older(Older(before.sentence, ()), common_issue(bench), bench.stage.clock.now()) == ""
    assert (await bench.epochs.read()).older_since is None


def common_issue(bench: Bench) -> Issue:
    return build_older_issue(Older("older", ()), bench.stage.deps.ids, bench.stage.clock)
