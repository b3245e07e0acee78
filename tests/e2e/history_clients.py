"""Clients that write and read a few registers on real managers, and remember what they saw, for the judge of histories.

A register is a service's label. A write is an update that carries the version just read, so it is a compare-and-set
on values that are never used twice. What is not answered clearly may have happened: it stays in the history unanswered.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from pyswarm.v1 import control_pb2, control_pb2_grpc, types_pb2
from pyswarm_simulator.linearizability import Kind, Operation

CALL_TIMEOUT_S = 3.0
REGISTERS = ("register-a", "register-b", "register-c")
_PAUSE_S = 0.02
# Refused before anything was proposed, or by every member alike: certainly not done.
_NOT_DONE = (grpc.StatusCode.ABORTED, grpc.StatusCode.ALREADY_EXISTS)


class Recorder:
    """What all clients saw, and which objects were acknowledged."""

    def __init__(self) -> None:
        self.history: list[Operation] = []
        self.created: set[str] = set()
        self.refusals: set[str] = set()
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def next_value(self) -> str:
        with self._lock:
            return f"v{next(self._numbers)}"

    def add(self, operation: Operation) -> None:
        with self._lock:
            self.history.append(operation)

    def acknowledge(self, name: str) -> None:
        with self._lock:
            self.created.add(name)

    def count(self) -> int:
        """Acknowledged writes so far."""
        with self._lock:
            return sum(1 for o in self.history if o.kind is not Kind.READ and o.ret is not None)


class Client(threading.Thread):
    """One client of one manager's socket; goes on through every error until told to stop."""

    def __init__(self, number: int, socket: Path, recorder: Recorder, stop: threading.Event) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._number, self._socket, self._recorder, self._stop_asked = number, socket, recorder, stop
        self.crash: BaseException | None = None

    def run(self) -> None:
        try:
            with grpc.insecure_channel(f"unix:{self._socket}") as channel:
                control = control_pb2_grpc.ControlStub(channel)
                for turn in itertools.count():
                    if self._stop_asked.is_set():
                        return
                    self._turn(control, turn)
        except BaseException as error:
            self.crash = error

    def _turn(self, control: control_pb2_grpc.ControlStub, turn: int) -> None:
        register = REGISTERS[turn % len(REGISTERS)]
        service = self._read(control, register)
        if service is None:
            self._stop_asked.wait(_PAUSE_S)
            return
        self._write(control, register, service)
        if turn % 4 == 0:
            self._create(control, f"kept-{self._number}-{turn}")

    def _read(self, control: control_pb2_grpc.ControlStub, register: str) -> types_pb2.Service | None:
        call = time.monotonic()
        try:
            answer = control.GetService(control_pb2.GetServiceRequest(service=register), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            self._refused(error)
            return None
        value = answer.service.spec.labels.get("value")
        self._recorder.add(Operation(self._number, call, time.monotonic(), Kind.READ, register, result=value))
        return answer.service

    def _write(self, control: control_pb2_grpc.ControlStub, register: str, service: types_pb2.Service) -> None:
        expected, value = service.spec.labels.get("value"), self._recorder.next_value()
        service.spec.labels["value"] = value
        request = control_pb2.UpdateServiceRequest(
            service_id=service.id, version=service.meta.version, spec=service.spec
        )
        call = time.monotonic()
        ret: float | None = None
        try:
            control.UpdateService(request, timeout=CALL_TIMEOUT_S)
            ret = time.monotonic()
        except grpc.RpcError as error:
            self._refused(error)
            if error.code() in _NOT_DONE:
                return
        self._recorder.add(Operation(self._number, call, ret, Kind.COMPARE_AND_SET, register, value, True, expected))

    def _create(self, control: control_pb2_grpc.ControlStub, name: str) -> None:
        spec = types_pb2.ServiceSpec(name=name, replicas=0)
        spec.task.container.image = "none"
        try:
            control.CreateService(control_pb2.CreateServiceRequest(spec=spec), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            self._refused(error)
        else:
            self._recorder.acknowledge(name)

    def _refused(self, error: grpc.RpcError) -> None:
        self._recorder.refusals.add(f"{error.code().name}: {error.details()}")
        self._stop_asked.wait(_PAUSE_S)


@contextmanager
def clients(sockets: list[Path], recorder: Recorder) -> Iterator[Callable[[int], None]]:
    """A client at each socket; yields a function that waits for so many more acknowledged writes."""
    stop = threading.Event()
    threads = [Client(number, socket, recorder, stop) for number, socket in enumerate(sockets)]

    def wait_writes(count: int) -> None:
        wanted, deadline = recorder.count() + count, time.monotonic() + 60.0
        while recorder.count() < wanted:
            assert time.monotonic() < deadline, f"no {count} writes within a minute: {sorted(recorder.refusals)}"
            time.sleep(0.05)

    for thread in threads:
        thread.start()
    try:
        yield wait_writes
    finally:
        stop.set()
        for thread in threads:
            thread.join(30.0)
    crashes = [thread.crash for thread in threads if thread.crash is not None]
    assert not crashes, crashes
