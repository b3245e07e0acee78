"""Flags of networks and published ports."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.service.options.kinds import NETWORK, PORTS, Decorator, listed, option

SHARED: list[Decorator[Any]] = [
    option("--endpoint-mode", type_=click.Choice(["vip", "dnsrr"]), help_="How the service's name resolves"),
    option(
        "--session-affinity",
        type_=click.Choice(["none", "client-ip"]),
        help_="Keep each client at one task (client-ip)",
    ),
]

CREATE: list[Decorator[Any]] = [
    listed("--network", type_=NETWORK, help_="Networks (NAME, or name=NAME,alias=ALIAS,ip=ADDRESS,vip=ADDRESS)"),
    listed(
        "-p",
        "--publish",
        type_=PORTS,
        help_="Ports ([ADDRESS:]8080:80/tcp, or published=8080,target=80,mode=ingress|host,policy=spread|local)",
    ),
]

UPDATE: list[Decorator[Any]] = [
    listed("--network-add", type_=NETWORK, help_="Add a network"),
    listed("--network-rm", help_="Remove a network"),
    listed("--publish-add", type_=PORTS, help_="Add a published port"),
    listed("--publish-rm", help_="Remove a published port by its target port (80, 53/udp)"),
]
