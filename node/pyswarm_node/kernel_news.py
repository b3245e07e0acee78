"""Hearing from the kernel that something about the machine's network changed. What, is read from the kernel itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

LINKS = 0x1
ADDRESSES = 0x10 | 0x100
ROUTES = 0x40 | 0x400
_READ_BYTES = 64 * 1024


async def kernel_news(groups: int, settle_s: float, again_after_s: float) -> AsyncIterator[None]:
    """Yields after something of these groups has changed and come to rest, and now and then in any case."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as news:
        news.bind((0, groups))
        news.setblocking(False)
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_reader(news, _drain, news, heard)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(again_after_s):
                        await heard.wait()
                await asyncio.sleep(settle_s)
                heard.clear()
                yield
        finally:
            loop.remove_reader(news)


def _drain(news: socket.socket, heard: asyncio.Event) -> None:
    """Too many messages at once (ENOBUFS) are news as well."""
    heard.set()
    with contextlib.suppress(OSError):
        while news.recv(_READ_BYTES):
            pass
