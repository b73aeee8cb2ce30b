"""From a name to exactly one context."""

from __future__ import annotations

import pytest

from oma.domain.errors import Code, OmaError
from oma.service.names import get_context
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage


async def _fails(stage: Stage, name: str, context_id: str | None = None) -> OmaError:
    with pytest.raises(OmaError) as raised:
        await get_context(stage.deps, name, context_id)
    return raised.value


@pytest.mark.parametrize("name", ["PhilB Test machine", "db/prod #7", "сервер-1"])
async def test_a_name_is_found_letter_by_letter(stage: Stage, name: str) -> None:
    vm = await stage.add(BrokenVm(name))
    assert (await get_context(stage.deps, name, None)).context_id == vm.context_id


@pytest.mark.parametrize("asked", ["PGTEST1", "pgtest1 ", " pgtest1"])
async def test_a_near_match_is_not_taken_and_named(stage: Stage, asked: str) -> None:
    await stage.add(BrokenVm("pgtest1"))
    error = await _fails(stage, asked)
    assert error.code is Code.VM_NOT_FOUND
    assert error.fields["near_matches"] == ["pgtest1"]
    assert "Did you mean 'pgtest1'?" in error.sentence


async def test_two_vms_of_one_name_are_told_apart_by_their_context(stage: Stage) -> None:
    first, second = await stage.add(BrokenVm(vcenter="vc-1")), await stage.add(BrokenVm(vcenter="vc-2"))
    error = await _fails(stage, "pgtest1")
    assert error.code is Code.AMBIGUOUS_VM_NAME
    assert {(one["context_id"], one["vcenter_host"]) for one in error.fields["candidates"]} == {
        (first.context_id, "vc-1"),
        (second.context_id, "vc-2"),
    }
    assert (await get_context(stage.deps, "pgtest1", second.context_id)).vcenter_host == "vc-2"


async def test_a_context_of_another_vm_is_not_taken(stage: Stage) -> None:
    await stage.add()
    other = await stage.add(BrokenVm("other"))
    error = await _fails(stage, "pgtest1", other.context_id)
    assert error.code is Code.VM_NOT_FOUND


@pytest.mark.parametrize("name", ["", "x" * 256, "x" * 10_240, "a\x00b"])
async def test_a_name_that_no_vm_can_have_is_an_invalid_request(stage: Stage, name: str) -> None:
    error = await _fails(stage, name)
    assert (error.code, error.fields["field"]) == (Code.INVALID_REQUEST, "vm_name")
