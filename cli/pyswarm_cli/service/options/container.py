"""Flags of the container."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.service.options.kinds import DURATION, HOST, LABEL, MOUNT, SYSCTL, Decorator, listed, option, switch

SHARED: list[Decorator[Any]] = [
    option("--entrypoint", help_="Overwrite the default ENTRYPOINT of the image"),
    option("--hostname", help_="Container hostname"),
    switch("init", help_="Run an init in each container that forwards signals and reaps processes"),
    switch("read-only", help_="Mount the container's root filesystem read-only"),
    option("--stop-grace-period", type_=DURATION, help_="Time before a container is killed (ms|s|m|h) (default 10s)"),
    option("--stop-signal", help_="Signal to stop the container"),
    switch("tty", short="t", help_="Allocate a pseudo-TTY"),
    option("-u", "--user", help_="Name or UID, and group: name|uid[:group|gid]"),
    option("-w", "--workdir", help_="Working directory inside the container"),
    listed("--cap-add", help_="Add Linux capabilities"),
    listed("--cap-drop", help_="Drop Linux capabilities"),
]

CREATE: list[Decorator[Any]] = [
    listed("--container-label", type_=LABEL, help_="Container labels"),
    listed("--dns", help_="DNS servers of the containers"),
    listed("-e", "--env", help_="Environment variables (NAME=VALUE, or NAME to pass ours on)"),
    click.option("--env-file", type=click.File("r"), multiple=True, help="Read environment variables from a file"),
    listed("--host", type_=HOST, help_="Lines for /etc/hosts (name:address)"),
    listed("--mount", type_=MOUNT, help_="Mounts (type=bind|volume|tmpfs,source=…,target=…,readonly)"),
    listed("--sysctl", type_=SYSCTL, help_="Kernel parameters of the container"),
]

UPDATE: list[Decorator[Any]] = [
    listed("--container-label-add", type_=LABEL, help_="Add or change a container label"),
    listed("--container-label-rm", help_="Remove a container label by its key"),
    listed("--dns-add", help_="Add a DNS server"),
    listed("--dns-rm", help_="Remove a DNS server"),
    listed("--env-add", help_="Add or change an environment variable"),
    listed("--env-rm", help_="Remove an environment variable"),
    listed("--host-add", type_=HOST, help_="Add a line for /etc/hosts (name:address)"),
    listed("--host-rm", type_=HOST, help_="Remove a line of /etc/hosts (name:address)"),
    listed("--mount-add", type_=MOUNT, help_="Add or change a mount"),
    listed("--mount-rm", help_="Remove a mount by its target path"),
    listed("--sysctl-add", type_=SYSCTL, help_="Add or change a kernel parameter"),
    listed("--sysctl-rm", help_="Remove a kernel parameter"),
]
