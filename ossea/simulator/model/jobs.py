"""How asynchronous jobs run: one queue per VM, times, faults, endings."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from ossea.simulator.model.commands.base import AsyncCommand, Command
from ossea.simulator.model.effects import Effect
from ossea.simulator.model.entities import Job, JobStatus, Phase, VolumeState
from ossea.simulator.model.errors import INTERNAL, PARAMETER, ApiError, failed
from ossea.simulator.model.faults import FaultKind
from ossea.simulator.model.world import World

# The hypervisor is through a little before CloudStack says so: its answer, the database, the heartbeat.
_LEAD_FRACTION = 0.1
_LONGEST_LEAD_S = 0.25
_CANCELLED = "Job is cancelled as it has been blocking others for too long"
_RESTARTED = "job cancelled because of management server restart or shutdown"


class JobRunner:
    """Drives all jobs of a world; knows when the next thing happens."""

    def __init__(self, world: World, commands: Mapping[str, Command], *, driven: bool = False) -> None:
        self._world = world
        self._driven = driven
        self._commands = commands
        self._moments: list[tuple[float, int, str]] = []
        self._queues: dict[str, deque[str]] = {}
        self._being_run: set[str] = set()
        self._holds: dict[str, int] = {}

    # What the outside does

    def accept(self, job: Job, now: float) -> None:
        """The job exists from now on; its command's `check` runs at once, as `execute()` does."""
        self._world.add_job(job)
        command = self._command(job)
        self._log(job, command, "Scheduled")
        cancel_s = self._world.settings.job_cancel_s
        if cancel_s is not None:
            job.cancel_at = now + cancel_s
            self._push(job.cancel_at, job)
        fault = job.fault or {}
        try:
            if fault.get("kind") == FaultKind.JOB_FAIL and fault.get("errorcode") == PARAMETER:
                raise self._injected(job)
            queue = command.check(self._world, job)
        except ApiError as error:
            self._end_failed(job, now, error)
            return
        if fault.get("kind") == FaultKind.JOB_LATE:
            self._schedule(job, now + (fault.get("delay_s") or 0.0))
            return
        if queue is not None and self._world.settings.queue_per_vm:
            job.queue = queue
            self._queues.setdefault(queue, deque()).append(job.id)
            self._run_queue(queue, now)
        else:
            self._start(job, now)

    def hold_for(self, effects: Iterable[Effect]) -> None:
        """In a driven model a job does not end before each of its effects has been released."""
        if self._driven:
            for effect in effects:
                if effect.job_id is not None:
                    self._holds[effect.job_id] = self._holds.get(effect.job_id, 0) + 1

    def release(self, job_id: str, now: float, error: str | None) -> None:
        left = self._holds.get(job_id, 0) - 1
        if left > 0:
            self._holds[job_id] = left
        else:
            self._holds.pop(job_id, None)
        job = self._world.jobs.find(job_id)
        if job is None or job.phase == Phase.ENDED:
            return
        if error is not None:
            job.error = error
            self._world.jobs.touch(job)
        if left <= 0 and job.phase == Phase.APPLIED and job.next_at is None:
            self._schedule(job, max(now, job.works_until or now))

    def next_due(self) -> float | None:
        while self._moments and not self._is_current(self._moments[0]):
            heapq.heappop(self._moments)
        return self._moments[0][0] if self._moments else None

    def advance(self, now: float) -> None:
        while self._moments and self._moments[0][0] <= now:
            moment = heapq.heappop(self._moments)
            if not self._is_current(moment):
                continue
            at, _, job_id = moment
            self._world.now = at
            job = self._world.jobs.rows[job_id]
            if job.cancel_at == at and job.status == JobStatus.PENDING:
                self._cancel(job, at)
            if job.next_at == at:
                self._step(job, at)

    # A job's way

    def _start(self, job: Job, now: float) -> bool:
        """It is the job's turn; False where the next in its queue may start as well: it failed at once, or it hangs."""
        command = self._command(job)
        duration = self._world.settings.duration_s(command.name)
        fault = job.fault or {}
        kind, delay = fault.get("kind"), fault.get("delay_s")
        job.started = now
        stuck = kind == FaultKind.JOB_STUCK and delay is None
        job.due = now + duration + (delay if kind == FaultKind.JOB_STUCK and delay else 0.0)
        job.works_until = job.due + (delay if kind == FaultKind.JOB_FAIL_APPLIED and delay else 0.0)
        before = len(self._world.effects)
        try:
            command.begin(self._world, job)
        except ApiError as error:
            self._end_failed(job, now, error)
            return False
        self.hold_for(self._world.effects[before:])
        self._log(job, command, "Started")
        job.phase = Phase.RUNNING
        hangs_s = job.params.get("hangs_s")
        if hangs_s is not None:
            job.due = job.works_until = now + hangs_s
            self._schedule(job, job.due)
            self._leave_queue(job, now)
            job.queue = None
            return False
        if stuck:
            job.due = job.works_until = job.next_at = None
        elif job.works_until > job.due:
            self._schedule(job, job.due)
        else:
            self._schedule(job, job.due - min(duration * _LEAD_FRACTION, _LONGEST_LEAD_S))
        self._world.jobs.touch(job)
        return True

    def _step(self, job: Job, at: float) -> None:
        job.next_at = None
        if job.phase == Phase.QUEUED:
            self._start(job, at)
        elif job.phase == Phase.RUNNING:
            if job.status == JobStatus.PENDING and (job.works_until or at) > (job.due or at):
                self._mark_failed(job, at, self._injected(job))
                self._schedule(job, job.works_until or at)
                return
            self._apply(job)
            self._schedule(job, max(at, job.works_until or at))
        elif job.id in self._holds:
            self._world.jobs.touch(job)
        else:
            self._finish(job, at)

    def _apply(self, job: Job) -> None:
        command = self._command(job)
        before = len(self._world.effects)
        kind = (job.fault or {}).get("kind")
        if kind == FaultKind.JOB_FAIL:
            command.apply_broken(self._world, job)
        elif kind != FaultKind.JOB_NO_EFFECT:
            command.apply(self._world, job)
        job.phase = Phase.APPLIED
        self.hold_for(self._world.effects[before:])

    def _finish(self, job: Job, at: float) -> None:
        command = self._command(job)
        kind = (job.fault or {}).get("kind")
        if job.orphaned:
            job.phase = Phase.ENDED
            self._world.jobs.touch(job)
            return
        if job.error is not None or kind == FaultKind.JOB_FAIL:
            command.undo(self._world, job)
            self._end_failed(job, at, failed(job.error) if job.error is not None else self._injected(job))
            return
        try:
            result = command.finish(self._world, job)
        except ApiError as error:
            self._end_failed(job, at, error)
            return
        job.phase = Phase.ENDED
        if kind == FaultKind.JOB_FAIL_APPLIED:
            self._mark_failed(job, at, self._injected(job))
        elif job.status == JobStatus.PENDING:
            job.status = JobStatus.SUCCEEDED
            job.result = result
            job.ended = at
            self._log(job, command, "Completed")
            self._world.job_is_no_longer_pending(job)
            self._leave_queue(job, at)
        self._world.jobs.touch(job)

    def _end_failed(self, job: Job, at: float, error: ApiError) -> None:
        job.phase = Phase.ENDED
        job.next_at = None
        self._mark_failed(job, at, error)

    def _mark_failed(self, job: Job, at: float, error: ApiError | None) -> None:
        """Status 2; the hypervisor may still be at work. `error` None: `jobresult` is left out."""
        if job.status != JobStatus.PENDING:
            self._world.jobs.touch(job)
            return
        job.status = JobStatus.FAILED
        job.ended = at
        if error is not None and not (job.fault or {}).get("no_result"):
            job.result = {"errorcode": error.errorcode, "errortext": error.text}
        self._log(job, self._command(job), "Completed", level="ERROR")
        self._world.job_is_no_longer_pending(job)
        self._leave_queue(job, at)

    def _cancel(self, job: Job, at: float) -> None:
        """`job.cancel.threshold.minutes`: marked failed; a job that runs goes on at the hypervisor."""
        if job.phase == Phase.QUEUED:
            self._end_failed(job, at, failed(_CANCELLED))
        else:
            self._mark_failed(job, at, failed(_CANCELLED))

    # Queues

    def _run_queue(self, queue: str, now: float) -> None:
        """Start the head; a head that fails at once makes room for the next."""
        if queue in self._being_run:
            return
        self._being_run.add(queue)
        while waiting := self._queues.get(queue):
            head = self._world.jobs.rows[waiting[0]]
            if head.phase != Phase.QUEUED or self._start(head, now):
                break
        self._being_run.discard(queue)

    def _leave_queue(self, job: Job, now: float) -> None:
        waiting = self._queues.get(job.queue or "")
        if not waiting or job.id not in waiting:
            return
        was_head = waiting[0] == job.id
        waiting.remove(job.id)
        if not waiting:
            del self._queues[job.queue or ""]
        elif was_head:
            self._run_queue(job.queue or "", now)

    # Restart

    def restart(self, mode: str, now: float) -> None:
        """What the management server's restart does to pending jobs; see `Settings.restart`."""
        pending = [job for job in self._world.jobs.rows.values() if job.status == JobStatus.PENDING]
        if mode == "resume":
            return
        self._queues.clear()
        for job in pending:
            command = self._command(job)
            if job.phase == Phase.QUEUED:
                job.phase = Phase.ENDED
                job.next_at = None
            else:
                # The hypervisor finishes by itself; VM states come back with the power report.
                job.orphaned = command.instance_type != "VirtualMachine"
            self._mark_failed(job, now, None)
            if mode == "fail_and_lose_volumes" and job.command in {"attachVolume", "detachVolume"}:
                volume = self._world.live_volume(job.instance_id or "")
                if volume is not None:
                    volume.state = VolumeState.DESTROY
                    volume.removed = now
                    self._world.volumes.touch(volume)

    def rebuild(self) -> None:
        """Queues and times from the jobs as they were stored."""
        self._moments.clear()
        self._queues.clear()
        self._holds.clear()
        unfinished = [job for job in self._world.jobs.rows.values() if job.phase != Phase.ENDED]
        for job in unfinished:
            if job.phase == Phase.APPLIED and job.next_at is None:
                job.next_at = job.works_until
            if job.next_at is not None:
                self._push(job.next_at, job)
            if job.cancel_at is not None and job.status == JobStatus.PENDING:
                self._push(job.cancel_at, job)
        in_queues = [job for job in unfinished if job.queue is not None and job.status == JobStatus.PENDING]
        for job in sorted(in_queues, key=lambda job: (job.phase == Phase.QUEUED, job.order)):
            self._queues.setdefault(job.queue or "", deque()).append(job.id)

    # Small parts

    def _command(self, job: Job) -> AsyncCommand:
        command = self._commands[job.command.lower()]
        if not isinstance(command, AsyncCommand):
            raise TypeError(f"{job.command} has no jobs")
        return command

    def _schedule(self, job: Job, at: float) -> None:
        job.next_at = at
        self._push(at, job)
        self._world.jobs.touch(job)

    def _push(self, at: float, job: Job) -> None:
        heapq.heappush(self._moments, (at, job.order, job.id))

    def _is_current(self, moment: tuple[float, int, str]) -> bool:
        at, _, job_id = moment
        job = self._world.jobs.find(job_id)
        if job is None:
            return False
        return job.next_at == at or (job.cancel_at == at and job.status == JobStatus.PENDING)

    @staticmethod
    def _injected(job: Job) -> ApiError:
        fault: Mapping[str, Any] = job.fault or {}
        return ApiError(fault.get("errorcode") or INTERNAL, fault.get("errortext") or f"Failed to run {job.command}")

    def _log(self, job: Job, command: AsyncCommand, state: str, level: str = "INFO") -> None:
        if command.event is None or (state != "Scheduled" and not command.tells_end(job)):
            return
        words = {"Scheduled": "Scheduled async job for", "Started": "Starting job for"}
        if state == "Completed":
            words["Completed"] = "Successfully completed" if level == "INFO" else "Error while"
        text = f"{words[state]} {command.describe(job)}"
        self._world.log_event(command.event, state, text, level=level, resource_id=job.instance_id)
