"""Tells every client, over TCP and UDP, which host it met, at which port, and which address it was seen to have.

    python address_server.py PROXY_PORT PORT...

Serves TCP and UDP at each port; at PROXY_PORT it believes the PROXY protocol's header (version 2), not the socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
from ipaddress import ip_address
from typing import Any

HEADER = struct.Struct("!12sBBH")
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def answer(port: int, client: str) -> bytes:
    return f"{os.uname().nodename} {port} {client.removeprefix('::ffff:')}\n".encode()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, port: int) -> None:
        self._port = port

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._transport.sendto(answer(self._port, addr[0]), addr)


async def client_of(reader: asyncio.StreamReader) -> str:
    """As the header has it."""
    signature, command, family, length = HEADER.unpack(await reader.readexactly(HEADER.size))
    if (signature, command) != (SIGNATURE, 0x21):
        return "unknown"
    body = await reader.readexactly(length)
    return str(ip_address(body[: 4 if family == 0x11 else 16]))


async def serve(port: int, *, is_proxied: bool) -> None:
    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = await client_of(reader) if is_proxied else writer.get_extra_info("peername")[0]
        writer.write(answer(port, client))
        writer.close()

    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        server = await asyncio.start_server(met, sock=listener.dup())
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", port))
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Datagrams(port), sock=datagrams)
    await server.serve_forever()


async def main(proxied: int, ports: list[int]) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await asyncio.gather(serve(proxied, is_proxied=True), *(serve(port, is_proxied=False) for port in ports))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
