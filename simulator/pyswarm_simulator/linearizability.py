"""Whether a history of operations on registers could have happened one after another, each between its call and return.

The method is that of Wing and Gong with Lowe's memory of visited configurations, as in Porcupine (A. Athalye, 2017):
registers are checked one by one, since a history is linearizable exactly if it is for each object (Herlihy and Wing
1990, locality). Decides only that; it knows nothing of Raft. A history that fails is shown with the longest part of it
that could be put in order, and the simulator prints it with its seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import NamedTuple

MAX_CONFIGURATIONS = 100_000
"""Visited configurations of one register at which the search gives up."""


class Kind(Enum):
    """What an operation does to its register."""

    READ = "read"
    WRITE = "write"
    COMPARE_AND_SET = "compare and set"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client. Times are of one clock, in any unit; what is definitely refused is not an operation."""

    process: int
    call: float
    ret: float | None
    """None: no answer came. A write may then take effect at any time after its call, or never."""
    kind: Kind
    key: str
    value: str | None = None
    """What is written."""
    result: str | bool | None = None
    """What a read found (None: nothing yet), or whether a compare-and-set was done."""
    expected: str | None = None
    """What a compare-and-set wants to find."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok`, or the register that contradicts itself with the longest order that was found for it."""

    ok: bool
    key: str = ""
    order: tuple[Operation, ...] = ()
    stuck: tuple[Operation, ...] = ()
    """Operations that returned and found no place after `order`."""

    def explain(self) -> str:
        """A line per operation."""
        if self.ok:
            return "linearizable"
        lines = [f"register {self.key!r}: no order fits; the longest is"]
        lines += [f"  {_line(operation)}" for operation in self.order]
        lines += ["and then none of"]
        lines += [f"  {_line(operation)}" for operation in self.stuck]
        return "\n".join(lines)


class TooManyConfigurations(Exception):
    """The search was given up: too many operations are under way at once without an answer."""


def check(history: Iterable[Operation]) -> Verdict:
    """The verdict on a history. Raises TooManyConfigurations."""
    registers: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.ret is not None or operation.kind is not Kind.READ:  # an unanswered read says nothing
            registers[operation.key].append(operation)
    for key, operations in sorted(registers.items()):
        verdict = _Search(key, operations).run()
        if not verdict.ok:
            return verdict
    return Verdict(True)


def _step(state: str | None, operation: Operation) -> tuple[bool, str | None]:
    """Whether the operation can come next in a register that holds `state`, and what it then holds."""
    match operation.kind:
        case Kind.READ:
            return state == operation.result, state
        case Kind.WRITE:
            return True, operation.value
        case Kind.COMPARE_AND_SET:
            matches = state == operation.expected
            fits = operation.ret is None or operation.result == matches
            return fits, operation.value if matches else state


class _Event:
    """A call or a return, in a doubly linked list from which linearized operations are lifted out."""

    __slots__ = ("following", "index", "matching", "previous")

    def __init__(self, index: int, matching: _Event | None) -> None:
        self.index = index
        self.matching = matching
        """The return of a call; None for a return."""
        self.previous: _Event | None = None
        self.following: _Event | None = None


class _Taken(NamedTuple):
    call: _Event
    state_before: str | None


class _Search:
    """Depth first over the orders of one register's operations, each configuration (done, state) visited once."""

    def __init__(self, key: str, operations: Sequence[Operation]) -> None:
        self._key = key
        self._operations = sorted(operations, key=attrgetter("call"))
        self._head = _linked(self._operations)
        self._answered = sum(1 << i for i, o in enumerate(self._operations) if o.ret is not None)
        self._done = 0
        self._state: str | None = None
        self._taken: list[_Taken] = []
        self._visited: set[tuple[int, str | None]] = set()
        self._longest: tuple[int, ...] = ()

    def run(self) -> Verdict:
        event = self._head.following
        while self._done & self._answered != self._answered:
            assert event is not None, "a return is met before the list ends"
            if event.matching is not None:
                event = self._head.following if self._try(event) else event.following
            elif self._taken:
                event = self._give_back().following
            else:
                return self._failure()
        return Verdict(True)

    def _try(self, call: _Event) -> bool:
        """Let this operation come next, unless it does not fit or leads where the search has been."""
        fits, state = _step(self._state, self._operations[call.index])
        done = self._done | 1 << call.index
        if not fits or (done, state) in self._visited:
            return False
        if len(self._visited) >= MAX_CONFIGURATIONS:
            raise TooManyConfigurations(f"register {self._key!r}: {len(self._operations)} operations")
        self._visited.add((done, state))
        self._taken.append(_Taken(call, self._state))
        self._done, self._state = done, state
        if len(self._taken) > len(self._longest):
            self._longest = tuple(taken.call.index for taken in self._taken)
        _lift(call)
        return True

    def _give_back(self) -> _Event:
        call, self._state = self._taken.pop()
        self._done &= ~(1 << call.index)
        _unlift(call)
        return call

    def _failure(self) -> Verdict:
        order = tuple(self._operations[i] for i in self._longest)
        placed = set(self._longest)
        left = (o for i, o in enumerate(self._operations) if i not in placed and o.ret is not None)
        return Verdict(False, self._key, order, tuple(left))


def _linked(operations: Sequence[Operation]) -> _Event:
    """The events in order of time. What is called at the moment of a return is concurrent with it: calls go first."""
    end = float("inf")
    returns = [_Event(i, None) for i in range(len(operations))]
    timed = [(o.call, 0, i, _Event(i, returns[i])) for i, o in enumerate(operations)]
    timed += [(end if o.ret is None else o.ret, 1, i, returns[i]) for i, o in enumerate(operations)]
    head = previous = _Event(-1, None)
    for *_, event in sorted(timed, key=lambda entry: entry[:3]):
        previous.following, event.previous = event, previous
        previous = event
    return head


def _lift(call: _Event) -> None:
    assert call.matching is not None
    for event in (call, call.matching):
        assert event.previous is not None, "the head is never lifted"
        event.previous.following = event.following
        if event.following is not None:
            event.following.previous = event.previous


def _unlift(call: _Event) -> None:
    assert call.matching is not None
    for event in (call.matching, call):
        assert event.previous is not None
        event.previous.following = event
        if event.following is not None:
            event.following.previous = event


def _line(operation: Operation) -> str:
    end = "…" if operation.ret is None else f"{operation.ret:g}"
    what = {
        Kind.READ: f"read -> {operation.result}",
        Kind.WRITE: f"write {operation.value}",
        Kind.COMPARE_AND_SET: f"compare and set {operation.expected} -> {operation.value}: {operation.result}",
    }[operation.kind]
    return f"[{operation.call:g}, {end}] process {operation.process}: {what}"
