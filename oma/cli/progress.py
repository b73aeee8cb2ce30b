"""The live view: phases by volumes of one VM, or a line per VM, with the current sentence and the time it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from oma.cli.output import new_table, visible
from oma.cli.reading import FAILED_ACTION_STATES, GOOD_ACTION_STATES, ActionView, JobView
from oma.cli.words import target_text
from oma.domain.states import PHASES, Phase
from oma.gui.words import duration_words

SHORT_NAMES: Final[Mapping[Phase, str]] = {
    Phase.ANALYZE: "analyze",
    Phase.DETACH: "detach",
    Phase.SNAPSHOTS: "snapshots",
    Phase.REATTACH: "reattach",
    Phase.RESET: "reset",
}
CELLS: Final[Mapping[str, Text]] = {
    "completed": Text("done", "green"),
    "running": Text("runs", "cyan"),
    "failed": Text("failed", "red"),
    "skipped": Text("skip", "dim"),
}
NOTHING: Final = Text("·", "dim")
MOST_LINES: Final = 30
"""VMs or volumes drawn at once: a live view that is higher than the screen flickers."""


WIDEST_NAME, STATE_WIDTH, PHASE_WIDTH, TIME_WIDTH = 32, 16, 13, 12


@dataclass(slots=True)
class VmProgress:
    """One VM of this call. `outcome` is set when it has come to its end, in one word."""

    vm_name: str
    began: float
    sentence: str = "asking the daemon"
    job_id: str = ""
    view: JobView | None = None
    outcome: str = ""
    ended: float | None = None
    notes: list[str] = field(default_factory=list)

    def seconds(self, now: float) -> float:
        return (self.ended if self.ended is not None else now) - self.began

    @property
    def word(self) -> str:
        return self.outcome or (visible(self.view.state) if self.view else "asking")


def render_progress(vms: Sequence[VmProgress], now: float) -> RenderableType:
    """What stands on the terminal at `now` (of the same clock as `began`)."""
    return _one_vm(vms[0], now) if len(vms) == 1 else _many_vms(vms, now)


def _one_vm(vm: VmProgress, now: float) -> RenderableType:
    head = Text.assemble((visible(vm.vm_name), "bold"), "  ", vm.word, "  ", (duration_words(vm.seconds(now)), "dim"))
    parts: list[RenderableType] = [head]
    if vm.view is not None:
        parts.append(volume_grid(vm.view))
    if vm.sentence and not vm.outcome:
        parts.append(_line(Text(f"> {visible(vm.sentence)}")))
    return Group(*parts)


def volume_grid(view: JobView) -> Table:
    """A row for the phases themselves, then one per volume."""
    table = new_table("", *(SHORT_NAMES[phase] for phase in PHASES))
    table.add_row("phase", *_phase_cells(view))
    cells = _volume_cells(view)
    for name in list(cells)[:MOST_LINES]:
        table.add_row(name, *(_action_cell(cells[name].get(phase.value, [])) for phase in PHASES))
    if len(cells) > MOST_LINES:
        table.add_row(Text(f"and {len(cells) - MOST_LINES} more", "dim"))
    return table


def _many_vms(vms: Sequence[VmProgress], now: float) -> RenderableType:
    """Those that still run come first, so that a long list shows what moves."""
    table = new_table("VM", "STATE", "PHASE", "TIME", "")
    table.expand = True
    for column, width in zip(
        table.columns, (_name_width(vms), STATE_WIDTH, PHASE_WIDTH, TIME_WIDTH, None), strict=True
    ):
        column.no_wrap, column.overflow, column.width = True, "ellipsis", width
    table.columns[-1].ratio = 1
    for vm in sorted(vms, key=lambda one: bool(one.outcome))[:MOST_LINES]:
        sentence = "" if vm.outcome else visible(vm.sentence)
        table.add_row(visible(vm.vm_name), vm.word, _phase_words(vm), duration_words(vm.seconds(now)), sentence)
    ended = sum(1 for vm in vms if vm.outcome)
    return Group(table, Text(f"{ended} of {len(vms)} VMs have ended", "dim"))


def _name_width(vms: Sequence[VmProgress]) -> int:
    return min(max(cell_len(visible(vm.vm_name)) for vm in vms), WIDEST_NAME)


def _phase_words(vm: VmProgress) -> str:
    """How far it is, such as `3/5 snapshots`; empty before the first phase."""
    if vm.view is None or not vm.view.phase:
        return ""
    names = {phase.value: f"{place}/{len(PHASES)} {SHORT_NAMES[phase]}" for place, phase in enumerate(PHASES, 1)}
    return names.get(vm.view.phase, visible(vm.view.phase))


def _phase_cells(view: JobView) -> list[Text]:
    status = {step.name: step.status for step in view.steps}
    return [CELLS.get(status.get(phase.value, ""), NOTHING) for phase in PHASES]


def _volume_cells(view: JobView) -> dict[str, dict[str, list[ActionView]]]:
    """Actions by volume's name and phase, volumes in the order in which they appear."""
    cells: dict[str, dict[str, list[ActionView]]] = {}
    names = _volume_names(view)
    for step in view.steps:
        for action in step.actions:
            volume_id = action.target.get("volume_id")
            if volume_id:
                row = cells.setdefault(names.get(str(volume_id), target_text(action.target)), {})
                row.setdefault(step.name, []).append(action)
    return cells


def _volume_names(view: JobView) -> dict[str, str]:
    """Actions on snapshots may name the volume by its id alone."""
    return {
        str(action.target["volume_id"]): visible(action.target["volume_name"])
        for step in view.steps
        for action in step.actions
        if action.target.get("volume_id") and action.target.get("volume_name")
    }


def _action_cell(actions: Sequence[ActionView]) -> Text:
    states = {action.state for action in actions}
    if not states:
        return NOTHING
    if states & FAILED_ACTION_STATES:
        return CELLS["failed"]
    if states <= {"SKIPPED"}:
        return CELLS["skipped"]
    return CELLS["completed"] if states <= {*GOOD_ACTION_STATES, "SKIPPED"} else CELLS["running"]


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
