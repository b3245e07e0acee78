"""`pyswarm init --force-new-cluster`: says what one surviving manager would go on with, asks, and does it."""

from __future__ import annotations

from typing import Any

import click

from pyswarm.v1 import node_pb2
from pyswarm_cli.confirmation import confirm
from pyswarm_cli.connection import Connection, call
from pyswarm_cli.failures import one_line
from pyswarm_cli.views.backups import objects

_PLAN_S = 300.0
_FORCE_S = 600.0


def force_new_cluster(connection: Connection, advertise_addr: str, *, yes: bool) -> None:
    """After lost quorum, on a manager that still has its data."""
    request = node_pb2.ForceNewClusterRequest(advertise_addr=advertise_addr)
    plan = call(connection.daemon.PlanForceNewCluster, request, _PLAN_S)
    if plan.is_done:
        click.echo(f"Nothing to do: this node ({plan.node_id}) is the only manager of its swarm, and leads it.")
        return
    click.echo("\n".join(_lines(plan)), err=True)
    confirm("forcing a new cluster", yes=yes)
    done = call(connection.daemon.ForceNewCluster, request, _FORCE_S)
    click.echo(
        f"Swarm {done.cluster_id} goes on: current node ({done.node_id}) is its only manager, at "
        f"{done.manager_address}.\nAdd managers soon: `pyswarm node promote`, or `pyswarm join-token manager`."
    )


def _lines(plan: Any) -> list[str]:
    counts = {"node": plan.nodes, "service": plan.services, "task": plan.tasks, "network": plan.networks}
    unsure = plan.last_index - plan.commit_index
    kept = f"          all of its log, which ends at index {plan.last_index}"
    if unsure > 0:
        kept += f" ({unsure} of it perhaps never acknowledged)"
    return [
        f"This manager of swarm {plan.cluster_id} has no leader and would go on alone, at {plan.manager_address}.",
        f"  Stays:  {objects(counts)}, the root certificate and the join tokens;",
        f"{kept}. Containers run on.",
        "  Lost:   changes that only the lost managers had on disk when they were lost.",
        "  Dropped from the managers:",
        *(f"          {one_line(d.hostname) or 'unknown'} {one_line(d.address)} {d.node_id}" for d in plan.dropped),
        "          Should one of them come back, it is refused as a manager and becomes a worker, or it leaves the",
        "          swarm and joins again. Be sure that they are down: if a majority of them still runs somewhere,",
        "          there would be two swarms.",
    ]
