"""`pyswarm version` and `pyswarm info`."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import click

from pyswarm.v1 import node_pb2
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.output.rows import show_objects
from pyswarm_common.errors import PyswarmError

_STATES = {0: "inactive", 1: "pending", 2: "active", 3: "error", 4: "locked"}


def _own_version() -> str:
    return metadata.version("pyswarm-cluster")


@click.command(help="Show the versions of this command and of the daemon.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="json, or a Go-style template")
@click.pass_context
def version(ctx: click.Context, format_: str) -> None:
    """`version`. Without a daemon it still tells the version of the command, and fails."""
    client = {"Version": _own_version(), "Python": platform.python_version(), "Os": platform.system().lower()}
    server: dict[str, Any] | None = None
    failure: Exception | None = None
    try:
        info = call(connect(ctx).daemon.GetInfo, node_pb2.GetInfoRequest())
        server = {"Version": info.version, "Capabilities": dict(info.capabilities)}
    except (FromDaemon, PyswarmError) as error:
        failure = error
    if format_:
        click.echo(show_objects([{"Client": client, "Server": server}], format_), nl=False)
    else:
        click.echo(f"Client:\n Version:  {client['Version']}\n Python:   {client['Python']}")
        if server is not None:
            click.echo(f"\nDaemon:\n Version:  {server['Version']}")
    if failure is not None:
        raise failure


@click.command(help="Show what this machine is, and its part in the swarm.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="json, or a Go-style template")
@click.pass_context
def info(ctx: click.Context, format_: str) -> None:
    """`info`."""
    connection = connect(ctx)
    found = call(connection.daemon.GetInfo, node_pb2.GetInfoRequest())
    facts = _facts(found)
    if found.manager_running:
        facts["Swarm"].update(_health(connection))
    if format_:
        click.echo(show_objects([facts], format_), nl=False)
        return
    for line in _lines(facts, ""):
        click.echo(line)


def _facts(found: Any) -> dict[str, Any]:
    swarm: dict[str, Any] = {"LocalNodeState": _STATES.get(found.state, "unknown")}
    if found.error:
        swarm["Error"] = found.error
    if found.node_id:
        swarm |= {
            "NodeID": found.node_id,
            "Role": "manager" if found.role else "worker",
            "ClusterID": found.cluster_id,
            "NodeAddress": found.address,
            "ManagerAddresses": list(found.manager_addresses),
        }
    return {
        "Name": found.hostname,
        "ServerVersion": found.version,
        "ContainersRunning": found.containers_running,
        "Capabilities": dict(found.capabilities),
        "Swarm": swarm,
    }


def _health(connection: Connection) -> dict[str, Any]:
    """What this machine's manager says of the swarm; its silence is an answer, too."""
    from pyswarm.v1 import health_pb2  # noqa: PLC0415 - only on managers

    try:
        health = call(connection.health.GetHealth, health_pb2.GetHealthRequest(), 5.0)
    except FromDaemon as error:
        return {"Managers": f"unknown: {error}"}
    leader = next((member.address for member in health.members if member.leader), "none: no quorum, or an election")
    facts: dict[str, Any] = {"Managers": len(health.members), "Leader": leader, "RaftTerm": health.term}
    facts |= _root(connection)
    return facts | ({"DiskProblem": health.disk_problem} if health.disk_problem else {})


def _root(connection: Connection) -> dict[str, Any]:
    """How far the root's replacement is, if it is being replaced."""
    from pyswarm.v1 import security_pb2  # noqa: PLC0415

    try:
        root = call(connection.security.GetRoot, security_pb2.GetRootRequest(), 5.0).root
    except FromDaemon:
        return {}  # without a leader nobody can say
    if not root.target_ca_cert:
        return {}
    return {"RootRotationInProgress": f"{root.nodes_rotated}/{root.nodes_total} nodes"}


def _lines(value: dict[str, Any], indent: str) -> list[str]:
    out = []
    for name, item in value.items():
        if isinstance(item, dict):
            out += [f"{indent}{name}:", *_lines(item, indent + " ")]
        else:
            out.append(f"{indent}{name}: {', '.join(item) if isinstance(item, list) else item}")
    return out
