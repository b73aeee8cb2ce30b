"""What the person sees while runs go on: a line per event, or a view drawn over itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Self

from rich.live import Live
from rich.text import Text

from oma.cli.output import Output, visible
from oma.cli.progress import VmProgress, render_progress
from oma.cli.runs import Update

REFRESH_PER_S: Final = 4


class PlainWatch:
    """A line per event, for pipes and logs."""

    looks = False

    def __init__(self, output: Output, names: Sequence[str]) -> None:
        self._output, self._names = output, names
        self._jobs: dict[int, str] = {}

    @property
    def job_ids(self) -> list[str]:
        return list(self._jobs.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def on_update(self, update: Update | None) -> None:
        if update is None:
            return
        if update.result is not None:
            self._jobs.pop(update.place, None)
        elif update.job_id and update.place not in self._jobs:
            self._jobs[update.place] = update.job_id
            self._say(update.place, f"job {update.job_id}")
        if update.event is not None and update.event.sentence:
            self._say(update.place, update.event.sentence)
        if update.note:
            self._say(update.place, update.note)

    def _say(self, place: int, sentence: str) -> None:
        prefix = f"{visible(self._names[place])}: " if len(self._names) > 1 else ""
        self._output.note(Text(f"{prefix}{visible(sentence)}"))


class LiveWatch:
    """The progress view, drawn over itself on stderr."""

    looks = True

    def __init__(self, output: Output, names: Sequence[str]) -> None:
        now = time.monotonic()
        self._vms = [VmProgress(vm_name=name, began=now) for name in names]
        self._live = Live(
            render_progress(self._vms, now), console=output.notes, refresh_per_second=REFRESH_PER_S, transient=False
        )

    @property
    def job_ids(self) -> list[str]:
        return [vm.job_id for vm in self._vms if vm.job_id and not vm.outcome]

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_update(self, update: Update | None) -> None:
        now = time.monotonic()
        if update is not None:
            apply_update(self._vms[update.place], update, now)
        self._live.update(render_progress(self._vms, now))


def apply_update(vm: VmProgress, update: Update, now: float) -> None:
    """What an update changes in the view of its VM."""
    vm.job_id = update.job_id or vm.job_id
    if update.view is not None and not (vm.view is not None and vm.view.ended):
        vm.view = update.view
    if update.event is not None and update.event.sentence:
        vm.sentence = update.event.sentence
    if update.note:
        vm.sentence = update.note
    if update.result is not None:
        vm.outcome, vm.ended = update.result.outcome, now
