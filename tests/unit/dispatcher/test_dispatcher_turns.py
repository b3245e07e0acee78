"""A thousand sessions with something to say do not keep the event loop from anything else."""

from __future__ import annotations

import asyncio

from pyswarm_manager.dispatcher.turns import PER_PASS, Turns


async def test_so_many_in_each_pass_and_everybody_in_order() -> None:
    turns, done = Turns(per_pass=4), list[int]()

    async def say(number: int) -> None:
        await turns.take()
        done.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(say(number))
        before = 0
        while len(done) < 50:
            await asyncio.sleep(0)
            assert len(done) - before <= 4, "more than may compute in one pass"
            before = len(done)
    assert done == list(range(50))


async def test_a_few_do_not_wait() -> None:
    turns, passes = Turns(), 0

    async def count() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    counting = asyncio.create_task(count())
    for _ in range(PER_PASS):
        await turns.take()
    assert not passes
    counting.cancel()


async def test_who_gave_up_takes_no_turn() -> None:
    turns, done = Turns(per_pass=1), list[int]()

    async def say(number: int) -> None:
        await turns.take()
        done.append(number)

    await turns.take()
    waiting = [asyncio.create_task(say(number)) for number in range(6)]
    await asyncio.sleep(0)
    gone = [task for task in waiting[2:5] if task.cancel()]
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5.0)
    assert len(gone) == 3
    assert done == [0, 1, 5]


async def test_there_are_new_turns_when_all_have_had_theirs() -> None:
    turns = Turns(per_pass=1)
    for _ in range(3):
        await asyncio.gather(*(turns.take() for _ in range(5)))
