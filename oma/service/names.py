"""From a VM's name to exactly one context. A name alone is not unique, and near is not equal."""

from __future__ import annotations

from oma.domain.errors import Code, OmaError
from oma.domain.records import VmContext
from oma.service.deps import Deps

LONGEST_NAME = 255


async def get_context(deps: Deps, vm_name: str, context_id: str | None) -> VmContext:
    """The one context meant; raises `invalid_request`, `vm_not_found` or `ambiguous_vm_name` with the candidates."""
    check_name(vm_name)
    candidates, near = await deps.inventory.list_contexts_named(vm_name)
    if context_id is not None:
        chosen = [context for context in candidates if context.context_id == context_id]
        if chosen:
            return chosen[0]
        raise OmaError(
            Code.VM_NOT_FOUND,
            f"No VM named {vm_name!r} has the context {context_id!r}; leave context_id out to see the candidates.",
            vm_name=vm_name,
            candidates=[_as_candidate(context) for context in candidates],
        )
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise OmaError(
            Code.AMBIGUOUS_VM_NAME,
            f"{len(candidates)} VMs are named {vm_name!r}; say which one with context_id.",
            vm_name=vm_name,
            candidates=[_as_candidate(context) for context in candidates],
        )
    hint = f" Did you mean {', '.join(repr(name) for name in near)}?" if near else ""
    raise OmaError(
        Code.VM_NOT_FOUND,
        f"No VM is named {vm_name!r}; names match only letter by letter.{hint} `oma vms` lists them.",
        vm_name=vm_name,
        near_matches=list(near),
    )


def check_name(vm_name: str) -> None:
    """Raises `invalid_request` for a name that no VM can have."""
    if not vm_name:
        raise OmaError(
            Code.INVALID_REQUEST, "The VM name is empty; give the name as `oma vms` shows it.", field="vm_name"
        )
    if len(vm_name) > LONGEST_NAME:
        raise OmaError(
            Code.INVALID_REQUEST,
            f"The VM name has {len(vm_name)} characters; at most {LONGEST_NAME} are allowed.",
            field="vm_name",
        )
    if "\x00" in vm_name:
        raise OmaError(
            Code.INVALID_REQUEST, "The VM name holds a NUL character, which no VM name can.", field="vm_name"
        )


def _as_candidate(context: VmContext) -> dict[str, str]:
    return {
        "context_id": context.context_id,
        "vcenter_host": context.vcenter_host,
        "status": context.current_status,
    }
