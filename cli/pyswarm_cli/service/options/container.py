"""Flags of the container."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse import containers
from pyswarm_cli.service.options.kinds import (
    CONFIG,
    DEVICE,
    DURATION,
    HOST,
    LABEL,
    LOG_OPTION,
    MOUNT,
    SECRET,
    SECURITY,
    SIZE,
    SYSCTL,
    ULIMIT,
    Decorator,
    listed,
    option,
    switch,
)

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
    option("--credential-spec", type_=Parsed("credential-spec", containers.credential_spec), help_="(Windows only)"),
    option("--ipc", type_=Parsed("mode", containers.namespace_mode), help_="IPC namespace: host or private"),
    option("--isolation", type_=Parsed("string", containers.isolation), help_="Isolation technology (default)"),
    option("--log-driver", help_="Logging driver (json-file, local, journald, none)"),
    listed("--log-opt", type_=LOG_OPTION, help_="Logging driver options (max-size=10m, max-file=3)"),
    option(
        "--oom-score-adj",
        type_=Parsed("int", containers.oom_score),
        help_="The kernel's OOM preference (-1000 to 1000)",
    ),
    option("--pid", type_=Parsed("mode", containers.namespace_mode), help_="PID namespace: host or private"),
    switch("privileged", help_="All rights and all devices of the node"),
    listed("--security-opt", type_=SECURITY, help_="no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE"),
    option("--shm-size", type_=SIZE, help_="Size of /dev/shm (default 64m)"),
    listed("--cap-add", help_="Add Linux capabilities"),
    listed("--cap-drop", help_="Drop Linux capabilities"),
]

CREATE: list[Decorator[Any]] = [
    listed("--config", type_=CONFIG, help_="Configs to expose (NAME or source=,target=,uid=,gid=,mode=,env=,pinned)"),
    listed("--container-label", type_=LABEL, help_="Container labels"),
    listed("--device", type_=DEVICE, help_="Devices of the node (HOST[:CONTAINER][:rwm])"),
    listed("--secret", type_=SECRET, help_="Secrets to expose (NAME or source=,target=,uid=,gid=,mode=,env=,pinned)"),
    listed("--dns-option", help_="DNS options"),
    listed("--dns-search", help_="DNS search domains"),
    listed("--group", help_="Supplementary groups, by name or number"),
    listed("--ulimit", type_=ULIMIT, help_="Ulimits (TYPE=SOFT[:HARD])"),
    listed("--dns", help_="DNS servers of the containers"),
    listed("-e", "--env", help_="Environment variables (NAME=VALUE, or NAME to pass ours on)"),
    click.option("--env-file", type=click.File("r"), multiple=True, help="Read environment variables from a file"),
    listed("--host", type_=HOST, help_="Lines for /etc/hosts (name:address)"),
    listed("--mount", type_=MOUNT, help_="Mounts (type=bind|volume|tmpfs,source=…,target=…,readonly)"),
    listed("--sysctl", type_=SYSCTL, help_="Kernel parameters of the container"),
]

UPDATE: list[Decorator[Any]] = [
    listed("--config-add", type_=CONFIG, help_="Add or change a config"),
    listed("--config-rm", help_="Remove a config by its name"),
    listed("--secret-add", type_=SECRET, help_="Add or change a secret"),
    listed("--secret-rm", help_="Remove a secret by its name"),
    listed("--container-label-add", type_=LABEL, help_="Add or change a container label"),
    listed("--container-label-rm", help_="Remove a container label by its key"),
    listed("--device-add", type_=DEVICE, help_="Add or change a device of the node (HOST[:CONTAINER][:rwm])"),
    listed("--device-rm", help_="Remove a device by its path in the container"),
    listed("--dns-option-add", help_="Add a DNS option"),
    listed("--dns-option-rm", help_="Remove a DNS option"),
    listed("--dns-search-add", help_="Add a DNS search domain"),
    listed("--dns-search-rm", help_="Remove a DNS search domain"),
    listed("--group-add", help_="Add a supplementary group"),
    listed("--group-rm", help_="Remove a supplementary group"),
    listed("--ulimit-add", type_=ULIMIT, help_="Add or change a ulimit (TYPE=SOFT[:HARD])"),
    listed("--ulimit-rm", help_="Remove a ulimit by its type"),
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
