from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from volume_daemon.server.queue import FairQueue, Turns


def test_at_most_two_of_a_vm_are_outstanding_and_the_next_follows_an_end():
    queue = FairQueue(2)
    for name in ("a", "b", "c"):
        queue.put("oma", "ctx", name)
    assert queue.take_ready("oma") == ["a", "b"]
    assert queue.take_ready("oma") == []
    assert queue.place("oma", "c") == 1
    queue.leave("oma", "a")
    assert queue.take_ready("oma") == ["c"]


def test_a_vm_with_many_disks_does_not_stand_before_all_others():
    queue = FairQueue(1)
    for number in range(4):
        queue.put("oma", "big", f"big{number}")
    queue.put("oma", "small", "small0")
    served = []
    while ready := queue.take_ready("oma"):
        served += ready
        queue.leave("oma", ready[0])
    assert served == ["big0", "small0", "big1", "big2", "big3"]


def test_vms_do_not_wait_for_each_other():
    queue = FairQueue(1)
    queue.put("oma", "a", "1")
    queue.put("test-vm", "a", "2")
    assert queue.take_ready("oma") == ["1"]
    assert queue.take_ready("test-vm") == ["2"]


def test_calls_adopted_after_a_restart_count():
    queue = FairQueue(2)
    for name in ("x", "y", "z"):
        queue.serve_at_once("oma", name)
    queue.put("oma", "a", "1")
    queue.leave("oma", "x")
    assert queue.take_ready("oma") == []
    queue.leave("oma", "y")
    assert queue.take_ready("oma") == ["1"]


@given(st.lists(st.sampled_from("abcd"), max_size=20))
def test_the_place_told_is_the_place_served(requesters):
    queue = FairQueue(1)
    for number, requester in enumerate(requesters):
        queue.put("oma", requester, str(number))
    places = {str(number): queue.place("oma", str(number)) for number in range(len(requesters))}
    order = []
    while ready := queue.take_ready("oma"):
        order += ready
        queue.leave("oma", ready[0])
    assert {one: place for place, one in enumerate(order, 1)} == places
    assert queue.count_waiting() == queue.count_served() == 0


async def test_who_is_cancelled_while_waiting_leaves_the_queue():
    turns = Turns(FairQueue(1))
    entered = []

    async def take(name: str, until: asyncio.Event) -> None:
        async with turns.turn("oma", name, name) as waited:
            entered.append((name, waited))
            await until.wait()

    first_done, go = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(take("first", first_done))
    second = asyncio.create_task(take("second", go))
    third = asyncio.create_task(take("third", go))
    while turns.queue.count_waiting() < 2:
        await asyncio.to_thread(lambda: None)
    second.cancel()
    await asyncio.wait({second})
    assert turns.queue.place("oma", "third") == 1
    first_done.set()
    go.set()
    await asyncio.gather(first, third)
    assert entered == [("first", False), ("third", True)]
    assert turns.queue.count_served() == 0
