"""`pyswarm task cp`: docker's `cp`, for a container anywhere in the swarm."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import click
import grpc

from pyswarm.v1 import exec_pb2
from pyswarm_cli.connection import Connection, answers, connect, refusal
from pyswarm_cli.entering.local_files import CHUNK, packed, unpack
from pyswarm_cli.failures import FromDaemon
from pyswarm_common.errors import InvalidArgument

pb = exec_pb2


@click.command(
    help="Copy files: from a container (TASK:PATH LOCAL), or to one (LOCAL TASK:PATH). "
    "As LOCAL, - is a tar stream on standard output or input.",
)
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link at LOCAL points at")
@click.option("-q", "--quiet", is_flag=True, help="Do not say how much was copied")
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@click.pass_context
def copy(ctx: click.Context, follow_link: bool, quiet: bool, source: str, destination: str) -> None:
    """`task cp`."""
    remote_source, remote_destination = remote(source), remote(destination)
    if remote_source and remote_destination:
        raise InvalidArgument("copying between containers is not supported: copy to this machine first")
    counter = _Counter()
    if remote_source:
        _copy_from(connect(ctx), remote_source, destination, counter)
        told = destination
    elif remote_destination:
        _copy_to(connect(ctx), source, remote_destination, follow_link, counter)
        told = destination
    else:
        raise InvalidArgument("must specify at least one container source: write TASK:PATH for its side")
    if not quiet and destination != "-":
        click.echo(f"Successfully copied {counter} to {told}", err=True)


def remote(text: str) -> tuple[str, str] | None:
    """(task, path) of `TASK:PATH`. None for a local path: a colon in one must come after a slash or dot, as docker has
    it."""
    target, colon, path = text.partition(":")
    if not colon or text.startswith((".", "/")) or "/" in target:
        return None
    if not path:
        raise InvalidArgument(f'"{text}" names no path in the container: write {text}/path')
    return target, path


class _Counter:
    """How much went by."""

    def __init__(self) -> None:
        self._bytes = 0

    def count(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._bytes += len(chunk)
            yield chunk

    def __str__(self) -> str:
        size, unit = float(self._bytes), "B"
        for larger in ("kB", "MB", "GB"):
            if size < 1000:
                break
            size, unit = size / 1000, larger
        return f"{size:.3g}{unit}"


def _copy_from(connection: Connection, source: tuple[str, str], destination: str, counter: _Counter) -> None:
    target, path = source
    responses = answers(connection.exec.CopyFrom(pb.CopyFromRequest(target=target, path=path)))
    chunks = counter.count(answer.data for answer in responses)
    if destination != "-":
        unpack(chunks, destination)
        return
    if sys.stdout.isatty():
        raise InvalidArgument("refusing to write a tar stream to a terminal: send it to a file or a program")
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _copy_to(
    connection: Connection, source: str, destination: tuple[str, str], follow: bool, counter: _Counter
) -> None:
    target, path = destination
    chunks = counter.count(iter(lambda: sys.stdin.buffer.read(CHUNK), b"") if source == "-" else packed(source, follow))

    def requests() -> Iterator[pb.CopyToRequest]:
        yield pb.CopyToRequest(start=pb.CopyFromRequest(target=target, path=path))
        for chunk in chunks:
            for start in range(0, len(chunk), CHUNK):
                yield pb.CopyToRequest(data=chunk[start : start + CHUNK])

    _send(connection, requests())


def _send(connection: Connection, requests: Iterator[pb.CopyToRequest]) -> None:
    """The requests are made in a thread of gRPC's: what fails there ends the call, and is told here."""
    failures: list[Exception] = []
    begun = threading.Event()

    def guarded() -> Iterator[pb.CopyToRequest]:
        try:
            yield from requests
        except Exception as error:  # whatever it is, the main thread raises it
            failures.append(error)
            begun.wait()
            future.cancel()

    future: Any = connection.exec.CopyTo.future(guarded())
    begun.set()
    try:
        future.result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        if failures:
            raise failures[0] from None
        raise FromDaemon(refusal(error)) from None
