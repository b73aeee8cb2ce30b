from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from oma.cli.exits import Exit
from oma.cli.progress import VmProgress, render_progress
from oma.cli.reading import read_job
from oma.cli.runs import Result, Update
from oma.cli.stream import ServerEvent
from oma.cli.watch import apply_update
from oma.domain.actions import ActionKind
from oma.domain.states import ActionState, JobState, Phase
from oma.http.schemas import job_detail
from oma.service.queries import JobView
from tests.unit.cli.golden import assert_golden
from tests.unit.gui import samples


def view_of(name: str = "pgtest1", state: JobState = JobState.RUNNING, actions=None):
    job = samples.job(name=name, state=state, phase=Phase.SNAPSHOTS)
    found = samples.actions_of_run() if actions is None else actions
    return read_job(job_detail(JobView(job, samples.steps(Phase.SNAPSHOTS), found, ())))


def drawn(vms, now: float = 42.0, width: int = 100) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(render_progress(vms, now))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def test_one_vm_shows_phases_by_volumes():
    actions = (
        *samples.actions_of_run(),
        samples.action(3, ActionKind.DETACH_VOLUME, Phase.DETACH, ActionState.SKIPPED),
        samples.action(4, ActionKind.DETACH_VOLUME, Phase.DETACH, ActionState.EXECUTED, volume=2),
        samples.action(5, ActionKind.DETACH_VOLUME, Phase.DETACH, ActionState.EXECUTION_FAILED, volume=3),
    )
    vm = VmProgress("pgtest1", began=1.0, sentence="Reverting vol-2 to its snapshot.", view=view_of(actions=actions))
    assert_golden("progress-one.txt", drawn([vm]))


def test_several_vms_have_a_line_each_and_those_that_run_come_first():
    vms = [
        VmProgress("done-vm", began=0.0, view=view_of("done-vm"), outcome="done", ended=31.0),
        VmProgress("waiting-vm", began=0.0),
        VmProgress("a running vm", began=0.0, view=view_of(), sentence="Reverting a volume whose name is long " * 4),
        VmProgress("refused-vm", began=0.0, outcome="refused", ended=0.4),
    ]
    text = drawn(vms)
    assert_golden("progress-several.txt", text)
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_hundred_vms_or_volumes_stay_on_a_screen():
    many = [VmProgress(f"vm-{number}", began=0.0, view=view_of()) for number in range(100)]
    assert len(drawn(many).splitlines()) < 40
    actions = tuple(
        samples.action(n, ActionKind.ATTACH_VOLUME, Phase.REATTACH, ActionState.STARTED, volume=n) for n in range(60)
    )
    assert len(drawn([VmProgress("pgtest1", began=0.0, view=view_of(actions=actions))]).splitlines()) < 40


def test_updates_move_the_view_and_a_late_look_never_moves_it_back():
    vm = VmProgress("pgtest1", began=0.0)
    running, ended = view_of(), view_of(state=JobState.COMPLETED)
    apply_update(vm, Update(0, "job-1", event=ServerEvent("1", "noted", {"sentence": "Began."})), 1.0)
    assert (vm.job_id, vm.sentence, vm.word) == ("job-1", "Began.", "asking")
    apply_update(vm, Update(0, "job-1", view=running), 2.0)
    assert vm.word == "running"
    apply_update(vm, Update(0, "job-1", view=ended), 3.0)
    apply_update(vm, Update(0, "job-1", view=running), 3.5)
    assert vm.word == "completed"
    apply_update(vm, Update(0, "job-1", note="The connection is lost."), 3.6)
    assert vm.sentence == "The connection is lost."
    apply_update(vm, Update(0, "job-1", result=Result("pgtest1", "done", Exit.DONE)), 4.0)
    assert (vm.word, vm.seconds(99.0)) == ("done", 4.0)


def test_hostile_sentences_are_drawn_as_text():
    vm = VmProgress("\x1b[2Jvm", began=0.0, sentence="\x1b[31m[bold]x[/bold]", view=replace(view_of(), state="\x1b"))
    assert "\x1b" not in drawn([vm]) + drawn([vm, vm])
    assert "[bold]x[/bold]" in drawn([vm])
