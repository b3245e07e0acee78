"""Virtual time: what runs when, and what no longer runs."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import Future
from dataclasses import replace

import pytest

from pyswarm_manager.raft.core.types import HardState
from pyswarm_overlay.types import Attachment, NetworkTable, Sandbox
from pyswarm_simulator.disk import DiskThread, DiskWeather
from pyswarm_simulator.machine import SimOverlay
from pyswarm_simulator.manager import RaftDisk
from pyswarm_simulator.network import Network, Pipe
from pyswarm_simulator.profile import PROFILES
from pyswarm_simulator.simulation import run
from pyswarm_simulator.world import NeverRests, ProcessLoop, World, new_loop


def loop_of(world: World, rate: float = 1.0) -> ProcessLoop:
    return new_loop(world, "p", rate=rate)


async def note_after(delay_s: float, notes: list[float], world: World) -> None:
    await asyncio.sleep(delay_s)
    notes.append(world.now)


def test_time_passes_only_where_nothing_is_left_to_do() -> None:
    world, notes = World(1), []
    loop = loop_of(world)
    for delay_s in (5.0, 0.0, 1.0):
        loop.spawn(note_after(delay_s, notes, world))
    world.run_until(3.0)
    assert notes == [0.0, 1.0]
    assert world.now == 3.0
    world.run_until(10.0)
    assert notes == [0.0, 1.0, 5.0]


def test_a_fast_clock_wakes_its_process_early() -> None:
    world, notes = World(1), []
    loop_of(world, rate=2.0).spawn(note_after(3.0, notes, world))
    world.run_until(10.0)
    assert notes == [1.5]


def test_of_a_killed_process_not_even_finally_runs() -> None:
    world, notes = World(1), []
    loop = loop_of(world)

    async def work() -> None:
        try:
            await asyncio.sleep(1.0)
        finally:
            notes.append("cleaned up")

    task = loop.spawn(work())
    world.run_until(0.5)
    loop.kill()
    world.run_until(5.0)
    assert notes == []
    assert not task.done()


def test_a_frozen_process_goes_on_where_it_was() -> None:
    world, notes = World(1), []
    loop = loop_of(world)
    loop.spawn(note_after(1.0, notes, world))
    world.run_until(0.5)
    loop.freeze()
    world.run_until(4.0)
    assert notes == []
    loop.thaw()
    world.run_until(4.0)
    assert notes == [4.0]


def test_a_process_that_never_rests_is_found() -> None:
    world = World(1)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - that it never ends is the point
            await asyncio.sleep(0)

    loop_of(world).spawn(spin())
    with pytest.raises(NeverRests):
        world.run_until(1.0)


def test_what_follows_from_a_seed_is_always_the_same() -> None:
    def run() -> list[float]:
        world, notes = World(7), []
        loop = loop_of(world)
        for _ in range(20):
            loop.spawn(note_after(world.rng.random(), notes, world))
        world.run_until(2.0)
        return notes

    assert run() == run()


def test_a_disk_works_in_order_and_tells_only_the_living() -> None:
    world, written = World(1), []
    loop = loop_of(world)
    thread = DiskThread(world, loop, DiskWeather(slow=0.5))
    futures: list[Future[None]] = [thread.submit(written.append, number) for number in range(20)]
    world.run_until(5.0)
    assert written == list(range(20))
    assert all(future.done() for future in futures)
    lost = thread.submit(written.append, 20)
    loop.kill()
    world.run_until(10.0)
    assert not lost.done()


def test_what_a_killed_process_had_under_way_is_written_at_its_end_in_order_or_never() -> None:
    """Its successor, which may begin at once, must not find its own writes overwritten by it."""
    lengths = set()
    for seed in range(60):
        world, written = World(seed), []
        loop = loop_of(world)
        thread = DiskThread(world, loop, DiskWeather(slow=0.5))
        for number in range(5):
            thread.submit(written.append, number)
        loop.kill()
        reached = len(written)
        world.run_until(10.0)
        assert written == list(range(reached))
        lengths.add(reached)
    assert lengths == set(range(6))


def test_what_a_killed_manager_had_not_synced_is_lost_with_the_power_unless_it_was_counted_on() -> None:
    lost = set()
    for seed in range(60):
        for is_read in (False, True):
            world, weather = World(seed), DiskWeather()
            loop, disk = loop_of(world), RaftDisk(weather)
            disk.initialise(1, HardState(), ())
            DiskThread(world, loop, weather).submit(disk.save, HardState(term=7), (), None)
            loop.kill()
            found = disk.load() if is_read else disk._written
            disk.crash()
            lost.add((is_read, disk.durable() != found))
    assert lost == {(False, False), (False, True), (True, False)}


async def test_only_ingress_and_networks_with_containers_open_connections() -> None:
    overlay = SimOverlay()
    for network_id in ("ingress", "a", "b"):
        table = NetworkTable(network_id=network_id, name=network_id, vni=1, subnets=(), ingress=network_id == "ingress")
        await overlay.apply_table(table)
    attachment = Attachment(network_id="a", endpoint_id="t1", addresses=())
    await overlay.attach(Sandbox(sandbox_id="t1", attachments=(attachment,)))
    assert [table.network_id for table in overlay.sending()] == ["ingress", "a"]
    await overlay.detach("t1")
    assert [table.network_id for table in overlay.sending()] == ["ingress"]


def test_a_cut_holds_a_pipe_up_and_loses_nothing() -> None:
    world, arrived = World(1), []
    network = Network(world)
    network.weather.slow = 0.5
    pipe = Pipe(network, "a", "b")
    network.cut("a", "b")
    for number in range(10):
        pipe.send(lambda number=number: arrived.append(number))
    world.run_until(5.0)
    assert arrived == []
    assert network.silent_s("b", "a") == 5.0
    network.heal()
    world.run_until(6.0)
    assert arrived == list(range(10))


def test_bad_weather_loses_doubles_and_reorders_messages() -> None:
    world, arrived = World(1), []
    network = Network(world)
    network.weather.drop = network.weather.duplicate = network.weather.slow = 0.2
    for number in range(100):
        network.post("a", "b", lambda number=number: arrived.append(number))
    world.run_until(5.0)
    assert len(set(arrived)) < 100
    assert len(arrived) > len(set(arrived))
    assert arrived != sorted(arrived)


def test_nothing_of_a_run_stays_in_memory() -> None:
    """A soak runs thousands in one process."""
    quiet = replace(PROFILES["calm"], fault_s=1.0)
    run(1, quiet)
    before = len(gc.get_objects())
    for seed in range(2, 5):
        run(seed, quiet)
    assert len(gc.get_objects()) - before < 1000  # one run alone makes many thousands
