"""A conversation with a command in a container: our input there, its output here, its exit code in the end.

Input is read by a thread of its own, since the main thread waits for output; the queue between is short, so no more is
read than the command takes. The thread is never joined: it may wait for a key that never comes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

from pyswarm.v1 import exec_pb2
from pyswarm_cli.connection import Connection, answers
from pyswarm_cli.entering import terminal

CHUNK = 32 * 1024
QUEUED = 8


class Inputs:
    """What is sent: an iterator for gRPC, which takes from it in a thread of its own."""

    def __init__(self, start: exec_pb2.ExecStart) -> None:
        self._queue: queue.Queue[exec_pb2.ExecInput | None] = queue.Queue(QUEUED)
        self._start = start

    def __iter__(self) -> Iterator[exec_pb2.ExecInput]:
        yield exec_pb2.ExecInput(start=self._start)
        while (message := self._queue.get()) is not None:
            yield message

    def read_stdin(self) -> None:
        """Begin to send what comes on standard input."""
        threading.Thread(target=self._pump, daemon=True).start()

    def resized(self) -> None:
        """Tell the terminal's size; skipped while the queue is full, for the next one follows."""
        rows, columns = terminal.size()
        with contextlib.suppress(queue.Full):
            size = exec_pb2.TerminalSize(rows=rows, columns=columns)
            self._queue.put_nowait(exec_pb2.ExecInput(resize=size))

    def end(self) -> None:
        """Nothing more is sent."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def _pump(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(sys.stdin.fileno(), CHUNK):
                self._queue.put(exec_pb2.ExecInput(stdin=data))
        self._queue.put(exec_pb2.ExecInput(end_of_input=True))


def converse(connection: Connection, start: exec_pb2.ExecStart) -> int:
    """Run it; returns its exit code. What it writes goes to our standard output and error as it comes."""
    if start.tty:
        start.size.rows, start.size.columns = terminal.size()
    inputs = Inputs(start)
    call: Any = connection.exec.Run(iter(inputs))
    with contextlib.ExitStack() as stack:
        stack.callback(call.cancel)
        stack.callback(inputs.end)
        for answer in answers(call):
            match answer.WhichOneof("message"):
                case "started" if not start.detach:
                    _take_terminal(stack, start, inputs)
                case "stdout":
                    _write(sys.stdout.buffer, answer.stdout)
                case "stderr":
                    _write(sys.stderr.buffer, answer.stderr)
                case "exit_code":
                    return int(answer.exit_code)
    return 1


def _take_terminal(stack: contextlib.ExitStack, start: exec_pb2.ExecStart, inputs: Inputs) -> None:
    """Not before the command runs: until then Ctrl-C is ours."""
    if start.tty and start.stdin:
        stack.enter_context(terminal.raw_input())
    if start.tty:
        stack.enter_context(terminal.on_resize(inputs.resized))
    if start.stdin:
        inputs.read_stdin()


def _write(target: Any, data: bytes) -> None:
    target.write(data)
    target.flush()
