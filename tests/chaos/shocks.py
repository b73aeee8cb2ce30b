"""What is done to a world while runs are under way. Each shock lasts as long as its dice say, and then it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from oma.demo.programs import Program
from tests.chaos.place import EXPIRES_S, LEASE_S, Place
from tests.proxy import Held, Loss, Proxy

CHANGES: Final = (
    b"command=detachVolume",
    b"command=revertSnapshot",
    b"command=deleteSnapshot",
    b"command=attachVolume",
    b"command=stopVirtualMachine",
    b"command=destroyVirtualMachine",
)
CLOCK_STEP_S: Final = 120
HELD_WITHIN_S: Final = 2.5
"""How long a shock waits for the call that it means to hold."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Nothing was there that it could have struck; the sentence says what it waited for."""

    sentence: str


Act = Callable[[Place, Random], Awaitable[str | Missed]]


@dataclass(frozen=True, slots=True)
class Shock:
    """`act` returns, in a sentence, what it has done when nothing of it is left."""

    name: str
    act: Act
    possible: Callable[[Place], bool] = lambda _: True


async def kill_daemon(place: Place, dice: Random) -> str:
    return await _kill(place, dice.choice(place.daemons), dice)


async def kill_volume_daemon(place: Place, dice: Random) -> str:
    return await _kill(place, place.stack.volume_daemon, dice)


async def kill_simulator(place: Place, dice: Random) -> str:
    return await _kill(place, place.stack.simulator, dice)


async def kill_everything(place: Place, dice: Random) -> str:
    """As a power cut of the whole appliance does."""
    await asyncio.gather(*(_kill(place, program, dice) for program in (*place.daemons, place.stack.volume_daemon)))
    return "both daemons were killed at once and came back"


async def kill_database(place: Place, dice: Random) -> str:
    pause_s = dice.uniform(0.1, 1.5)
    await place.database.kill()
    await asyncio.sleep(pause_s)
    await place.database.start()
    return f"the database was killed and away for {pause_s:.1f} s and its start"


async def drain_daemon(place: Place, dice: Random) -> str:
    program = dice.choice(place.daemons)
    async with place.lock(program):
        await program.stop()
        await place.start(program)
    return f"{place.name_of(program)} was stopped in order and started"


async def pause_daemon(place: Place, dice: Random) -> str:
    """It wakes up after its lease ran out."""
    return await _pause(place, dice.choice(place.daemons), LEASE_S + dice.uniform(0.5, 1.5))


async def pause_volume_daemon(place: Place, dice: Random) -> str:
    return await _pause(place, place.stack.volume_daemon, dice.uniform(0.5, 4.0))


async def pause_simulator(place: Place, dice: Random) -> str:
    return await _pause(place, place.stack.simulator, dice.uniform(0.5, 3.0))


async def cut_connections(place: Place, dice: Random) -> str:
    where, proxy = _choose(place, dice)
    times = dice.randint(1, 4)
    for _ in range(times):
        proxy.cut()
        await asyncio.sleep(dice.uniform(0.05, 0.3))
    return f"all connections to {where} were cut {times} times"


async def slow_network(place: Place, dice: Random) -> str:
    where, proxy = _choose(place, dice)
    delay_s, for_s = dice.uniform(0.02, 0.25), dice.uniform(0.5, 2.0)
    proxy.delay_s = delay_s
    await asyncio.sleep(for_s)
    proxy.delay_s = 0
    return f"{where} was {delay_s * 1000:.0f} ms away, each way, for {for_s:.1f} s"


async def refuse_connections(place: Place, dice: Random) -> str:
    where, proxy = _choose(place, dice)
    for_s = dice.uniform(0.3, 2.0)
    proxy.refuses = True
    proxy.cut()
    await asyncio.sleep(for_s)
    proxy.refuses = False
    return f"{where} refused connections for {for_s:.1f} s"


async def split_network(place: Place, dice: Random) -> str:
    """Nothing passes, and nobody is told."""
    where, proxy = _choose(place, dice)
    for_s = dice.uniform(0.5, 3.0)
    proxy.pause()
    await asyncio.sleep(for_s)
    proxy.resume()
    return f"{where} was silent for {for_s:.1f} s"


async def lose_answers(place: Place, dice: Random) -> str | Missed:
    return await _lose(place, dice, Loss.ANSWER)


async def lose_requests(place: Place, dice: Random) -> str | Missed:
    return await _lose(place, dice, Loss.REQUEST)


async def deliver_late(place: Place, dice: Random) -> str | Missed:
    """A changing call is held in the network, its sender dies, and after the take-over it is delivered all the same."""
    words = dice.choice(CHANGES)
    held = place.cloud.hold(words)
    after_s = dice.choice((dice.uniform(0.2, LEASE_S), EXPIRES_S + dice.uniform(0.5, 1.5)))
    try:
        await held.arrived(HELD_WITHIN_S)
    except TimeoutError:
        held.release()
        return Missed(f"no {words.decode()} came to be held")
    sender = place.stack.volume_daemon if words in CHANGES[::3] else dice.choice(place.daemons)
    kills = dice.random() < 0.7
    if kills:
        await _kill(place, sender, dice)
    await asyncio.sleep(after_s)
    await _release(held)
    death = f", {place.name_of(sender)} was killed" if kills else ""
    return f"{words.decode()} was held{death}, and was delivered after {after_s:.1f} s"


async def restart_management_server(place: Place, dice: Random) -> str:
    """Its jobs end without a result, while the hypervisor works on."""
    mode = dice.choice(("resume", "fail"))
    async with place.lock(place.stack.simulator):
        await place.stack.admin.restart_server(mode)
    return f"CloudStack's management server restarted in mode {mode}"


async def step_clock(place: Place, dice: Random) -> str:
    """Of the server, by some minutes, for a while."""
    step_s, for_s = dice.choice((-CLOCK_STEP_S, CLOCK_STEP_S)), dice.uniform(0.5, 2.0)
    async with place.lock(place.stack.simulator):
        await place.stack.admin.put_settings(clock_offset_s=step_s)
        await asyncio.sleep(for_s)
        await place.stack.admin.put_settings(clock_offset_s=0)
    return f"CloudStack's clock was {step_s:+d} s off for {for_s:.1f} s"


async def fill_disk(place: Place, dice: Random) -> str:
    for_s = dice.uniform(0.3, 2.0)
    await place.database.fill_disk()
    await asyncio.sleep(for_s)
    await place.database.free_disk()
    return f"the database's disk was full for {for_s:.1f} s"


SHOCKS: Final[Sequence[Shock]] = (
    Shock("kill -9 oma", kill_daemon),
    Shock("kill -9 volume-daemon", kill_volume_daemon),
    Shock("kill -9 simulator", kill_simulator),
    Shock("kill -9 both daemons", kill_everything),
    Shock("kill -9 mariadb", kill_database, lambda place: place.database.can_die),
    Shock("stop oma", drain_daemon),
    Shock("pause oma past its lease", pause_daemon),
    Shock("pause volume-daemon", pause_volume_daemon),
    Shock("pause simulator", pause_simulator),
    Shock("cut connections", cut_connections),
    Shock("slow network", slow_network),
    Shock("refuse connections", refuse_connections),
    Shock("split network", split_network),
    Shock("lose answers", lose_answers),
    Shock("lose requests", lose_requests),
    Shock("deliver late", deliver_late),
    Shock("restart CloudStack", restart_management_server),
    Shock("step the server's clock", step_clock),
    Shock("disk full", fill_disk, lambda place: place.database.can_be_full),
)
BY_NAME: Final[Mapping[str, Shock]] = {shock.name: shock for shock in SHOCKS}


def choose_shocks(place: Place, dice: Random) -> list[Shock]:
    """One to three, which may overlap."""
    possible = [shock for shock in SHOCKS if shock.possible(place)]
    return dice.sample(possible, dice.choice((1, 2, 2, 3)))


async def _kill(place: Place, program: Program, dice: Random) -> str:
    pause_s = dice.uniform(0.0, 1.0)
    async with place.lock(program):
        await program.kill()
        await asyncio.sleep(pause_s)
        await place.start(program)
    return f"{place.name_of(program)} was killed and away for {pause_s:.1f} s"


async def _pause(place: Place, program: Program, for_s: float) -> str:
    async with place.lock(program):
        program.pause()
        await asyncio.sleep(for_s)
        program.resume()
    return f"{place.name_of(program)} was paused for {for_s:.1f} s"


def _choose(place: Place, dice: Random) -> tuple[str, Proxy]:
    return dice.choice(sorted(place.proxies.items()))


async def _lose(place: Place, dice: Random, loss: Loss) -> str | Missed:
    """Several pieces one after the other, of calls to CloudStack or the Volume Daemon."""
    where, proxy = dice.choice((("CloudStack", place.cloud), ("the Volume Daemon", place.volumes)))
    times, before = dice.randint(1, 6), proxy.counts.lost
    proxy.lose(loss, times=times)
    with suppress(TimeoutError):
        async with asyncio.timeout(3):
            while proxy.counts.lost - before < times:  # noqa: ASYNC110 - other processes decide when they speak
                await asyncio.sleep(0.05)
    proxy.forget_rules()
    lost = proxy.counts.lost - before
    if not lost:
        return Missed(f"no {loss.name.lower()} was there to be lost on the way to or from {where}")
    return f"{lost} {loss.name.lower()}s were lost on the way to or from {where}"


async def _release(held: Held) -> None:
    held.release()
    with suppress(TimeoutError, OSError):
        await held.delivered(2)
