"""`pyswarm init | join | leave | join-token | update`, also as `pyswarm swarm …`."""

from __future__ import annotations

from typing import Any

import click

from pyswarm.v1 import node_pb2, security_pb2
from pyswarm_cli.cluster_settings import change_cluster, manager_address, read_cluster
from pyswarm_cli.commands.force_new import force_new_cluster as force
from pyswarm_cli.commands.unlock import UNLOCK_HELP
from pyswarm_cli.confirmation import yes_option
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.params import AVAILABILITY, DURATION
from pyswarm_cli.parse.pools import pools, pools_with
from pyswarm_cli.pem_files import read_pem
from pyswarm_cli.secret_lines import read_join_token
from pyswarm_common import errors
from pyswarm_common.model import Availability, PlacementStrategy

_SLOW_CALL_S = 120.0

_JOIN_HELP = """To add a {role} to this swarm, run the following command:

    pyswarm join --token {token} {address}
"""


def _availability(text: str) -> Any:
    return Availability[text.upper()].value


@click.command(help="Make a new swarm, with this machine as its first manager.")
@click.option("--advertise-addr", default="", help="Address the other nodes reach this one at: IP[:port] or interface")
@click.option(
    "--listen-addr", default="", help="Address to listen on: IP[:port], [IPv6]:port or interface (default 0.0.0.0:2377)"
)
@click.option("--data-path-addr", default="", help="Address or interface for the traffic of containers")
@click.option("--data-path-port", type=click.IntRange(1024, 49151), default=None, help="UDP port of it (default 4789)")
@click.option("--default-addr-pool", multiple=True, help="Where networks get their subnets from (default 10.0.0.0/8)")
@click.option("--default-addr-pool-mask-length", type=click.IntRange(8, 29), default=None, help="Their size (24)")
@click.option("--availability", type=AVAILABILITY, default="active", show_default=True)
@click.option("--root-ca-cert", metavar="FILE", help="PEM: a CA of your own, then what leads to its root")
@click.option("--root-ca-key", metavar="FILE", help="PEM: the key of that CA")
@click.option("--cert-expiry", type=DURATION, help="Validity of node certificates (ms|s|m|h; default 90 days)")
@click.option("--autolock", is_flag=True, help="Managers need an unlock key to start again")
@click.option("--force-new-cluster", is_flag=True, help="After lost quorum: go on with this manager alone")
@yes_option
@click.pass_context
def init(
    ctx: click.Context,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    data_path_port: int | None,
    default_addr_pool: tuple[str, ...],
    default_addr_pool_mask_length: int | None,
    availability: str,
    root_ca_cert: str | None,
    root_ca_key: str | None,
    cert_expiry: float | None,
    autolock: bool,
    force_new_cluster: bool,
    yes: bool,
) -> None:
    """Make a new swarm."""
    if force_new_cluster:
        if listen_addr or data_path_addr or data_path_port or default_addr_pool or default_addr_pool_mask_length:
            raise click.UsageError("--force-new-cluster goes with --advertise-addr and --yes only")
        force(connect(ctx), advertise_addr, yes=yes)
        return
    if (root_ca_cert is None) != (root_ca_key is None):
        raise click.UsageError("--root-ca-cert and --root-ca-key go together")
    request = node_pb2.InitRequest(
        advertise_addr=advertise_addr,
        listen_addr=listen_addr,
        data_path_addr=data_path_addr,
        data_path_port=data_path_port or 0,
        default_address_pools=pools(default_addr_pool),
        subnet_size=default_addr_pool_mask_length or 0,
        availability=_availability(availability),
        root_ca_cert=read_pem(root_ca_cert),
        root_ca_key=read_pem(root_ca_key),
        node_cert_expiry_s=cert_expiry or 0.0,
        autolock=autolock,
    )
    _tell_made(call(connect(ctx).daemon.Init, request, _SLOW_CALL_S, "Still starting this machine's manager ..."))


def _tell_made(made: node_pb2.InitResponse) -> None:
    click.echo(f"Swarm initialized: current node ({made.node_id}) is now a manager.\n")
    click.echo(_JOIN_HELP.format(role="worker", token=made.worker_token, address=made.manager_address))
    click.echo("To add a manager to this swarm, run 'pyswarm join-token manager' and follow the instructions.\n")
    click.echo("Each manager backs the swarm up by itself. Keep what 'pyswarm backup key' shows outside of the swarm:")
    click.echo("after the loss of all managers nothing else opens those backups.")
    if made.unlock_key:
        click.echo("\n" + UNLOCK_HELP.format(key=made.unlock_key))


@click.command(help="Join a swarm, as a worker or as a manager: the token decides.")
@click.option("--token", default="", help="What `pyswarm join-token` shows on a manager")
@click.option(
    "--token-file", metavar="FILE", default="", help="A file with the token (`-`: stdin), which no process list shows"
)
@click.option("--advertise-addr", default="", help="Address the other nodes reach this one at: IP[:port] or interface")
@click.option(
    "--listen-addr",
    default="",
    help="Address to listen on, as a manager: IP[:port], [IPv6]:port or interface (default 0.0.0.0:2377)",
)
@click.option("--data-path-addr", default="", help="Address or interface for the traffic of containers")
@click.option("--availability", type=AVAILABILITY, default="active", show_default=True)
@click.argument("addresses", metavar="HOST[:PORT]...", nargs=-1, required=True)
@click.pass_context
def join(
    ctx: click.Context,
    token: str,
    token_file: str,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    availability: str,
    addresses: tuple[str, ...],
) -> None:
    """Join a swarm."""
    if token and token_file:
        raise click.UsageError("--token and --token-file do not go together")
    if not token and not token_file:
        raise click.UsageError("a join token is needed: give --token-file or --token")
    request = node_pb2.JoinRequest(
        remote_addrs=addresses,
        token=token or read_join_token(token_file),
        advertise_addr=advertise_addr,
        listen_addr=listen_addr,
        data_path_addr=data_path_addr,
        availability=_availability(availability),
    )
    where = ", ".join(addresses)
    hint = f"Still joining: asking for a manager at {where} (is the name known, and the manager running there?) ..."
    joined = call(connect(ctx).daemon.Join, request, _SLOW_CALL_S, hint)
    click.echo(f"This node joined a swarm as a {'manager' if joined.role else 'worker'}.")


@click.command(help="Leave the swarm. A manager needs --force, or to be demoted first.")
@click.option("-f", "--force", is_flag=True, help="Leave although this node is a manager")
@click.pass_context
def leave(ctx: click.Context, force: bool) -> None:
    """Leave the swarm."""
    hint = "Still leaving: what runs on this node is being stopped ..."
    call(connect(ctx).daemon.Leave, node_pb2.LeaveClusterRequest(force=force), _SLOW_CALL_S, hint)
    click.echo("Node left the swarm.")


@click.command(help="Show (or rotate) the token that lets machines join as a worker or as a manager.")
@click.option("-q", "--quiet", is_flag=True, help="Only the token")
@click.option("--rotate", is_flag=True, help="Make a new token first; the old one stops working")
@click.argument("role", type=click.Choice(["worker", "manager"]), metavar="(worker|manager)")
@click.pass_context
def join_token(ctx: click.Context, quiet: bool, rotate: bool, role: str) -> None:
    """Show a join token."""
    connection = connect(ctx)
    cluster = _rotated(connection, role) if rotate else read_cluster(connection)
    token = cluster.join_tokens.manager if role == "manager" else cluster.join_tokens.worker
    if not token:
        raise errors.Forbidden("only an admin may see join tokens")
    if quiet:
        click.echo(token)
        return
    if rotate:
        click.echo(f"Successfully rotated {role} join token.\n")
    click.echo(_JOIN_HELP.format(role=role, token=token, address=manager_address(connection)))


def _rotated(connection: Connection, role: str) -> Any:
    return change_cluster(connection, lambda spec: None, worker=role == "worker", manager=role == "manager")


@click.command(help="Change settings of the swarm.")
@click.option("--task-history-limit", type=click.IntRange(0, 1000), help="Ended tasks kept per slot")
@click.option("--revision-limit", type=click.IntRange(1, 1000), help="Specs kept per service (default 10)")
@click.option("--dispatcher-heartbeat", type=DURATION, help="Period of the nodes' heartbeats (ms|s|m|h)")
@click.option("--backup-interval", type=DURATION, help="Time between automatic backups (m|h); 0: none")
@click.option("--backups-kept", type=click.IntRange(1, 1000), help="Automatic backups that each manager keeps")
@click.option("--cert-expiry", type=DURATION, help="Validity of node certificates (ms|s|m|h)")
@click.option(
    "--autolock",
    type=bool,
    is_flag=False,
    flag_value=True,
    help="Whether managers need an unlock key to start again (true|false)",
)
@click.option("--managers", type=click.IntRange(0, 15), help="Managers that the swarm keeps by itself; 0: by hand")
@click.option("--manager-grace", type=DURATION, help="A manager that is silent so long is replaced (default 30s)")
@click.option(
    "--placement-strategy",
    type=click.Choice(["spread", "binpack"]),
    help="How tasks of services that say nothing are placed (default spread)",
)
@click.option("--orphan-after", type=DURATION, help="Tasks on a node that is down so long are given up (default 24h)")
@click.option("--tunnel-key-rotation", type=DURATION, help="Age at which keys of encrypted networks go (default 12h)")
@click.option("--default-addr-pool", multiple=True, help="Where new networks get their subnets from, in CIDR format")
@click.option("--default-addr-pool-mask-length", type=click.IntRange(8, 29), default=None, help="Their size (24)")
@click.pass_context
def update(
    ctx: click.Context,
    task_history_limit: int | None,
    revision_limit: int | None,
    dispatcher_heartbeat: float | None,
    backup_interval: float | None,
    backups_kept: int | None,
    cert_expiry: float | None,
    autolock: bool | None,
    managers: int | None,
    manager_grace: float | None,
    orphan_after: float | None,
    tunnel_key_rotation: float | None,
    placement_strategy: str | None,
    default_addr_pool: tuple[str, ...],
    default_addr_pool_mask_length: int | None,
) -> None:
    """Change settings of the swarm."""
    values = {
        "task_history_limit": task_history_limit,
        "revision_limit": revision_limit,
        "heartbeat_period_s": dispatcher_heartbeat,
        "backup_interval_s": backup_interval,
        "backups_kept": backups_kept,
        "node_cert_expiry_s": cert_expiry,
        "autolock": autolock,
        "managers": managers,
        "dead_manager_grace_s": manager_grace,
        "orphan_after_s": orphan_after,
        "tunnel_key_rotation_s": tunnel_key_rotation,
        "subnet_size": default_addr_pool_mask_length,
        "placement_strategy": None
        if placement_strategy is None
        else PlacementStrategy[placement_strategy.upper()].value,
    }
    given = {name: value for name, value in values.items() if value is not None}
    if not given and not default_addr_pool:
        raise click.UsageError("nothing to change: give at least one flag")

    def change(spec: Any) -> None:
        spec.default_address_pools[:] = pools_with(spec.default_address_pools, default_addr_pool)
        for name, value in given.items():
            setattr(spec, name, value)

    connection = connect(ctx)
    change_cluster(connection, change)
    click.echo("Swarm updated.")
    if autolock:
        key = call(connection.security.GetUnlockKey, security_pb2.GetUnlockKeyRequest()).unlock_key
        click.echo(UNLOCK_HELP.format(key=key))
    if managers and managers % 2 == 0:
        click.echo(f"Warning: {managers} managers bear the loss of no more than {managers - 1} do.", err=True)
