"""The kernel's news, from a namespace of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest


@pytest.mark.root
async def test_a_changed_link_is_news() -> None:
    """In a namespace of its own: the kernel tells of loopback's MTU."""
    program = (
        "import asyncio, subprocess\n"
        "from pyswarm_node.kernel_news import LINKS, kernel_news\n"
        "async def main():\n"
        "    async for _ in kernel_news(LINKS, 0.0, 60.0):\n"
        "        return print('heard')\n"
        "async def change():\n"
        "    await asyncio.sleep(0)\n"
        "    subprocess.run(['ip', 'link', 'set', 'lo', 'mtu', '1400'], check=True)\n"
        "async def both():\n"
        "    async with asyncio.timeout(20):\n"
        "        await asyncio.gather(main(), change())\n"
        "asyncio.run(both())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, ["unshare", "-n", sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("heard\n", 0), done.stderr
