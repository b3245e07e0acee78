"""A load client: so many requests a second, each on a connection of its own, at fixed times whatever the answers.

    python request_client.py HOST PORT RATE

Prints `ready` after the first good answer, and when its input ends a JSON object of what became of the requests. A
request has failed if it was refused, reset, cut off, answered with something else than 200, or not answered at all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

TIMEOUT_S = 60.0
SLOW_EVERY = 20
FAILURES_TOLD = 20


class Load:
    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.took: list[float] = []
        self._began = time.monotonic()
        self.failed: list[tuple[float, str]] = []
        """When (since the load began) a request was made that failed, and how."""

    async def request(self, path: str = "/") -> None:
        began, phase = time.monotonic(), "connecting"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                phase = "waiting for the answer"
                answer = await self._ask(reader, writer, path)
        except (OSError, TimeoutError) as error:
            self._fail(began, f"{phase}: {type(error).__name__} {error}")
            return
        if answer.startswith(b"HTTP/1.0 200 ") and answer.endswith(b"\n"):
            self.took.append(time.monotonic() - began)
        else:
            self._fail(began, f"answered {answer[:60]!r}")

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: web\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()

    def _fail(self, began: float, what: str) -> None:
        self.failed.append((round(began - self._began, 2), what))

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Late ticks are made up for at once: the load waits neither for the answers nor for this process."""
        began, made = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                due = int((time.monotonic() - began) * rate) + 1
                for number in range(made, due):
                    group.create_task(self.request("/" if number % SLOW_EVERY else "/slow"))
                made = max(made, due)
                await asyncio.sleep(1 / rate)

    def summary(self) -> dict[str, object]:
        took = sorted(self.took)
        return {
            "answered": len(took),
            "failed": self.failed[:FAILURES_TOLD],
            "median_ms": round(took[len(took) // 2] * 1000, 1) if took else None,
            "p99_ms": round(took[int(len(took) * 0.99)] * 1000, 1) if took else None,
            "longest_ms": round(took[-1] * 1000, 1) if took else None,
        }


async def main(host: str, port: int, rate: float) -> None:
    first = Load(host, port)
    while not first.took:
        await first.request()
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    load, stop = Load(host, port), asyncio.Event()
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ended.add_done_callback(lambda _: stop.set())
    await load.run(rate, stop)
    print(json.dumps(load.summary()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
