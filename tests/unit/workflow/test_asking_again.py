"""6-safety 6: others are looked for again before each detach from the OMA, before the first revert and the reset."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from database.tables import replication_jobs
from oma.domain.actions import ActionKind
from oma.domain.events import Event, EventType
from oma.domain.holders import NBD_CLIENT, DeviceHolder
from oma.domain.jobs import Job
from oma.domain.states import ActionState, JobState, Phase
from tests.fakes.scenario import OMA, BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.unit.workflow.evidence import unknown_process

pytestmark = pytest.mark.rule("6-asks-again")

CLIENT = DeviceHolder(NBD_CLIENT, "10.0.0.5:40112")
LOOP = DeviceHolder("loop", "loop3")


def on_oma() -> BrokenVm:
    """Both volumes hang on the OMA; an injection step ran, so that both go back to their snapshots."""
    disks = [Disk(place=OMA, mode="oma"), Disk(place=OMA, mode="oma")]
    return BrokenVm(disks=disks, steps=("virtio-driver-injection",), test_vm_state=None)


def on_test_vm() -> BrokenVm:
    return BrokenVm(test_vm_state="Stopped")


def error_of(job: Job) -> str:
    assert job.error is not None
    return str(job.error["detail"])


async def begin_replication(stage: Stage, vm: BrokenVm, *, status: str = "running", ago_s: float = 0) -> None:
    at = stage.clock.now() - timedelta(seconds=ago_s)
    began = f"'{at:%Y-%m-%d %H:%M:%S.%f}'"
    ended = began if status == "completed" else "NULL"
    await stage.sql(
        "INSERT INTO replication_jobs (id, vm_context_id, status, started_at, updated_at, completed_at) VALUES "
        f"('repl-new', '{vm.context_id}', '{status}', {began}, {began}, {ended})"
    )


async def run_until(stage: Stage, vm: BrokenVm, command: str) -> tuple[Job, asyncio.Task[str], asyncio.Event]:
    """The run up to the moment at which the Volume Daemon is asked for this; the event lets it go on."""
    gate = stage.volumes.weather.gates[command] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked(command)
    return job, running, gate


async def go_on(stage: Stage, job: Job, running: asyncio.Task[str], gate: asyncio.Event) -> Job:
    gate.set()
    await running
    return await stage.check(job.id)


def on_step(stage: Stage, phase: Phase) -> asyncio.Event:
    """Set as soon as this phase has completed; the run waits for nobody."""
    over = asyncio.Event()

    def look(event: Event) -> None:
        if event.type is EventType.STEP_COMPLETED and event.data["phase"] == phase.value:
            over.set()

    stage.deps.bus.on_event(look)
    return over


class TestBeforeADetachFromTheOma:
    @pytest.mark.parametrize(
        "holder", [LOOP, unknown_process(), unknown_process(role="nbd_server")], ids=["loop", "process", "nbd-server"]
    )
    async def test_a_device_that_somebody_opened_meanwhile_is_not_pulled_away(
        self, stage: Stage, holder: DeviceHolder
    ) -> None:
        vm = await stage.add(on_oma())
        job = await stage.submit(vm)

        def open_it(event: Event) -> None:
            if event.type is EventType.PLAN_SAVED:
                stage.volumes.holders[vm.volume_id(0)] = [holder]
                stage.volumes.holders[vm.volume_id(1)] = [holder]

        stage.deps.bus.on_event(open_it)
        await stage.work()
        job = await stage.check(job.id)
        assert stage.commands() == []
        assert "is held on the OMA by" in error_of(job)
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert [one["code"] for one in job.error["refusals"]] == ["device_in_use"] * 2
        assert await stage.status(vm) == "failed_over_test"

    async def test_each_detach_is_asked_for_and_one_that_was_sent_is_followed_to_its_end(self, stage: Stage) -> None:
        vm = await stage.add(on_oma())

        def open_it(event: Event) -> None:
            if event.type is EventType.PLAN_SAVED:
                stage.volumes.holders[vm.volume_id(1)] = [LOOP]

        stage.deps.bus.on_event(open_it)
        job = await stage.clean(vm)
        assert job.state is JobState.FAILED
        assert {target for command, target in stage.commands()} <= {vm.volume_id(0)}
        assert job.error is not None
        assert job.error["evidence"]["code"] == "device_in_use"
        assert [one["name"] for one in job.error["evidence"]["holders"]] == ["loop3"]
        assert "losetup -d /dev/loop3" in error_of(job)

    async def test_a_client_on_any_of_its_volumes_stops_the_detach_of_all(self, stage: Stage) -> None:
        vm = await stage.add(on_oma())

        def connect(event: Event) -> None:
            if event.type is EventType.PLAN_SAVED:
                stage.volumes.holders[vm.volume_id(1)] = [CLIENT]

        stage.deps.bus.on_event(connect)
        job = await stage.submit(vm)
        await stage.work()
        job = await stage.check(job.id)
        assert stage.commands() == []
        assert "pgtest1-disk-1 is being replicated on the OMA, by NBD client 10.0.0.5:40112" in error_of(job)
        assert job.error is not None
        assert [one["code"] for one in job.error["refusals"]] == ["operation_in_progress"]

    async def test_a_scan_that_lost_its_sight_stops_it(self, stage: Stage) -> None:
        vm = await stage.add(on_oma())

        def blind(event: Event) -> None:
            if event.type is EventType.PLAN_SAVED:
                stage.volumes.unread = ("process 1: Permission denied",)

        stage.deps.bus.on_event(blind)
        job = await stage.submit(vm)
        await stage.work()
        job = await stage.check(job.id)
        assert stage.commands() == []
        assert "can't be told" in error_of(job)

    async def test_a_volume_daemon_that_no_longer_says_who_holds_it_stops_it(self, stage: Stage) -> None:
        vm = await stage.add(on_oma())

        def silence(event: Event) -> None:
            if event.type is EventType.PLAN_SAVED:
                stage.volumes.weather.silent_for.add("list_holders")

        stage.deps.bus.on_event(silence)
        job = await stage.submit(vm)
        await stage.work()
        job = await stage.check(job.id)
        assert stage.commands() == []
        assert "can't be told: Volume Daemon did not say" in error_of(job)

    async def test_an_intent_that_a_crash_left_unsent_is_asked_for_again(self, stage: Stage) -> None:
        vm = await stage.add(on_oma())
        job, running, _ = await run_until(stage, vm, "detachVolume")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        stage.volumes.weather.gates.clear()
        stage.volumes.holders[vm.volume_id(0)] = [LOOP]
        await stage.break_off(job.id)
        await stage.work()
        job = await stage.check(job.id)
        assert job.state is JobState.FAILED
        assert vm.volume_id(0) not in {target for _, target in stage.commands()}
        (begun,) = [
            one
            for one in await stage.actions(job.id, ActionKind.DETACH_VOLUME)
            if one.target.volume_id == vm.volume_id(0)
        ]
        assert begun.state is ActionState.ROLLED_BACK

    async def test_a_detach_from_the_test_vm_asks_nobody(self, stage: Stage) -> None:
        vm = await stage.add(on_test_vm())
        stage.volumes.weather.silent_for.add("list_holders")
        job, running, gate = await run_until(stage, vm, "detachVolume")
        assert len(await stage.actions(job.id, ActionKind.DETACH_VOLUME)) > 0
        assert (await go_on(stage, job, running, gate)).state is JobState.COMPLETED


class TestBeforeTheFirstRevert:
    async def test_a_replication_that_began_meanwhile_sends_the_volumes_home(self, stage: Stage) -> None:
        vm = await stage.add(on_test_vm())
        job, running, gate = await run_until(stage, vm, "detachVolume")
        await begin_replication(stage, vm)
        job = await go_on(stage, job, running, gate)
        assert job.state is JobState.FAILED
        assert {command for command, _ in stage.commands()} == {"detachVolume", "attachVolume"}
        assert job.error is not None
        assert job.error["evidence"]["code"] == "operation_in_progress"
        assert error_of(job).startswith("Replication repl-new is running and was touched at ")

    async def test_one_that_began_and_ended_meanwhile_counts_too(self, stage: Stage) -> None:
        vm = await stage.add(on_test_vm())
        job, running, gate = await run_until(stage, vm, "detachVolume")
        await begin_replication(stage, vm, status="completed")
        job = await go_on(stage, job, running, gate)
        assert job.state is JobState.FAILED
        assert stage.count("revertSnapshot") == 0
        assert "Replication repl-new started" in error_of(job)

    async def test_a_client_on_a_volume_that_stayed_on_the_oma_stops_it(self, stage: Stage) -> None:
        vm = await stage.add(BrokenVm(disks=[Disk(), Disk(place=OMA, mode="oma")], test_vm_state="Stopped"))
        job, running, gate = await run_until(stage, vm, "detachVolume")
        stage.volumes.kept_devices.add(vm.volume_id(1))
        stage.volumes.holders[vm.volume_id(1)] = [CLIENT]
        job = await go_on(stage, job, running, gate)
        # Whether that volume's own detach was asked for before the client came decides if it is left in between.
        assert job.state in {JobState.FAILED, JobState.PARKED}
        assert stage.count("revertSnapshot") == 0

    @pytest.mark.parametrize(
        ("change", "words", "state"),
        [
            (
                "current_status = 'ready_for_failover'",
                "set the status of pgtest1 to ready_for_failover",
                JobState.PARKED,
            ),
            ("current_job_id = NULL", "set the current job of pgtest1 to none", JobState.FAILED),
        ],
    )
    async def test_a_context_that_somebody_else_changed_stops_it(
        self, stage: Stage, change: str, words: str, state: JobState
    ) -> None:
        vm = await stage.add(on_test_vm())
        job, running, gate = await run_until(stage, vm, "detachVolume")
        await stage.sql(f"UPDATE vm_replication_contexts SET {change} WHERE context_id = '{vm.context_id}'")
        gate.set()
        await running
        job = await stage.job(job.id)
        assert job.state is state
        assert words in error_of(job)
        assert stage.count("revertSnapshot") == 0

    async def test_a_failover_that_began_meanwhile_sends_the_volumes_home(self, stage: Stage) -> None:
        vm = await stage.add(on_test_vm())
        job, running, gate = await run_until(stage, vm, "detachVolume")
        await stage.sql(
            "INSERT INTO failover_jobs (vm_context_id, job_id, job_type, status, created_at) VALUES "
            f"('{vm.context_id}', 'failover-new', 'test', 'pending', '{stage.clock.now():%Y-%m-%d %H:%M:%S.%f}')"
        )
        job = await go_on(stage, job, running, gate)
        assert job.state is JobState.FAILED
        assert stage.count("revertSnapshot") == 0
        assert "Failover failover-new of pgtest1 began during this run" in error_of(job)

    async def test_a_daemon_that_cannot_tell_holders_matters_only_where_a_replication_is_open(
        self, stage: Stage
    ) -> None:
        vm = await stage.add(on_test_vm())
        stage.volumes.unread = ("process 1: Permission denied",)
        assert (await stage.clean(vm)).state is JobState.COMPLETED

    @pytest.mark.parametrize("disks", [[Disk()], [Disk(), Disk(place=OMA, mode="oma")]], ids=["test vm", "the OMA too"])
    async def test_an_open_row_whose_writer_is_gone_is_dead(self, stage: Stage, disks: list[Disk]) -> None:
        vm = await stage.add(BrokenVm(disks=disks, test_vm_state="Stopped"))
        await begin_replication(stage, vm, ago_s=4 * 3600)
        assert (await stage.clean(vm)).state is JobState.COMPLETED

    async def test_an_open_row_whose_writer_nobody_can_exclude_any_more_stops_it(self, stage: Stage) -> None:
        vm = await stage.add(BrokenVm(disks=[Disk(), Disk(place=OMA, mode="oma")], test_vm_state="Stopped"))
        await begin_replication(stage, vm, ago_s=4 * 3600)

        def blind(event: Event) -> None:
            if event.type is EventType.PLAN_SAVED:
                stage.volumes.unread = ("process 1: Permission denied",)

        stage.deps.bus.on_event(blind)
        job = await stage.clean(vm)
        assert job.state is JobState.FAILED
        assert "can't be told" in error_of(job)
        assert stage.count("revertSnapshot") == 0


class TestBeforeTheReset:
    @pytest.mark.parametrize("status", ["running", "completed"])
    async def test_a_replication_that_began_after_the_revert_parks_with_the_evidence(
        self, stage: Stage, status: str
    ) -> None:
        vm = await stage.add(on_test_vm())
        job, running, gate = await run_until(stage, vm, "attachVolume")
        await begin_replication(stage, vm, status=status)
        job = await go_on(stage, job, running, gate)
        assert job.state is JobState.PARKED
        assert job.error is not None
        assert job.error["phase"] == Phase.RESET.value
        (issue,) = await stage.open_issues(job.id)
        assert issue["evidence"]["replication_id"] == "repl-new"
        assert await stage.status(vm) == "cleanup_required"

    async def test_a_client_that_connected_after_the_reattach_parks(self, stage: Stage) -> None:
        vm = await stage.add(on_test_vm())
        over = on_step(stage, Phase.REATTACH)

        def connect(event: Event) -> None:
            if over.is_set():
                stage.volumes.holders[vm.volume_id(1)] = [CLIENT]

        stage.deps.bus.on_event(connect)
        job = await stage.clean(vm)
        assert job.state is JobState.PARKED
        assert "is being replicated on the OMA, by NBD client 10.0.0.5:40112" in error_of(job)
        assert await stage.status(vm) == "cleanup_required"

    async def test_nothing_is_waited_for_between_the_last_question_and_the_reset(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """CloudStack's time, which the markers' removal needs, may take long to be told; then a replication begins."""
        vm = await stage.add(on_test_vm())
        find_server_time = stage.cloud.find_server_time

        async def slow() -> datetime:
            if stage.count("destroyVirtualMachine") and not await stage.rows(replication_jobs, id="repl-new"):
                await begin_replication(stage, vm)
            return await find_server_time()

        monkeypatch.setattr(stage.cloud, "find_server_time", slow)
        job = await stage.clean(vm)
        assert job.state is JobState.PARKED
        assert await stage.status(vm) == "cleanup_required"
        assert set(vm.volume_ids) <= stage.marks().keys(), "a parked run keeps its markers"
