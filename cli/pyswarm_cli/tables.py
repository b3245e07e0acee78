"""Every command of `pyswarm`, by group: where it lives and what its line of help says. Data only."""

from __future__ import annotations

from pyswarm_cli.default_group import DefaultGroup
from pyswarm_cli.lazy import Table, group

_SWARM: Table = {
    "init": ("commands.swarm:init", "Make a new swarm, with this machine as its first manager"),
    "join": ("commands.swarm:join", "Join a swarm as a worker or a manager"),
    "leave": ("commands.swarm:leave", "Leave the swarm"),
    "join-token": ("tables:join_token", "Show, rotate or make the tokens that let machines join"),
    "ca": ("commands.ca:ca", "Show or replace the root certificate"),
    "unlock": ("commands.unlock:unlock", "Unlock this manager after it restarted"),
    "unlock-key": ("commands.unlock:unlock_key", "Show or rotate the key that unlocks managers"),
    "update": ("commands.swarm:update", "Change settings of the swarm"),
}

_JOIN_TOKEN: Table = {
    "show": ("commands.swarm:join_token", "Show or rotate a token (what `pyswarm join-token worker` does)"),
    "create": ("commands.ca:create_token", "Make a token with an expiry and a number of uses"),
    "ls": ("commands.ca:list_tokens", "List the tokens with limits"),
    "rm": ("commands.ca:remove_tokens", "Remove tokens with limits"),
}

_BACKUP: Table = {
    "create": ("commands.backup:create", "Write a backup to a file (what `pyswarm backup FILE` does)"),
    "inspect": ("commands.backup:inspect", "Check a backup and show what is in it"),
    "key": ("commands.backup:key", "Show or rotate the key that opens backups"),
    "ls": ("commands.backup:list_backups", "List the automatic backups on this manager's disk"),
}

_NODE: Table = {
    "demote": ("commands.node:demote", "Make managers workers"),
    "drain": ("commands.node_drain:drain", "Move the tasks of nodes elsewhere"),
    "inspect": ("commands.node:inspect", "Show everything about nodes"),
    "ls": ("commands.node:list_nodes", "List the nodes of the swarm"),
    "promote": ("commands.node:promote", "Make workers managers"),
    "ps": ("commands.node:tasks", "List the tasks of nodes; of this one when none is named"),
    "rm": ("commands.node:remove", "Remove nodes from the swarm"),
    "update": ("commands.node:update", "Change a node's availability, role or labels"),
}

_OPERATOR: Table = {
    "raft": ("tables:operator_raft", "The managers' consensus: members, state, leadership"),
    "store": ("tables:operator_store", "What the managers' store holds"),
    "rotate-encryption-key": ("commands.unlock:rotate_encryption_key", "Make new keys for the managers' disks"),
    "check": ("commands.operator:check", "Compare what the managers hold, at one index"),
}
_OPERATOR_RAFT: Table = {
    "list-peers": ("commands.operator:list_peers", "List the members of Raft, as the leader sees them"),
    "state": ("commands.operator:raft_state", "Show the state of Raft on this manager"),
    "transfer-leadership": ("commands.operator:transfer_leadership", "Hand leadership to another manager"),
}
_OPERATOR_STORE: Table = {
    "inspect": ("commands.operator:store_inspect", "Show objects and bytes of each kind, the index and the digest"),
}

_SERVICE: Table = {
    "create": ("commands.service_create:create", "Create a new service"),
    "diff": ("commands.service_history:diff", "Show what differs between two revisions of a service"),
    "exec": ("commands.task_exec:execute", "Run a command in the container of one of a service's tasks"),
    "history": ("commands.service_history:history", "List the specs that a service had"),
    "inspect": ("commands.service:inspect", "Show everything about services"),
    "logs": ("commands.service_logs:logs", "Show what the containers of a service or task write"),
    "ls": ("commands.service:list_services", "List services"),
    "ps": ("commands.service:tasks", "List the tasks of services"),
    "rebalance": ("commands.why:rebalance", "Move tasks until services are spread evenly"),
    "rm": ("commands.service:remove", "Remove services"),
    "rollback": ("commands.service_update:rollback", "Go back to a service's previous configuration, or to any other"),
    "run": ("commands.service_run:run", "Run a job again, or a cron service now"),
    "runs": ("commands.service_run:runs", "List the runs of a job or a cron service"),
    "scale": ("commands.service_update:scale", "Set the number of replicas of services"),
    "start": ("commands.service_power:start", "Start services that were stopped"),
    "stop": ("commands.service_power:stop", "Stop services, and keep their specification"),
    "update": ("commands.service_update:update", "Change a service"),
    "why": ("commands.why:service_why", "Explain what of a service waits or fails"),
}

_TASK: Table = {
    "cp": ("commands.task_cp:copy", "Copy files between a task's container and this machine"),
    "exec": ("commands.task_exec:execute", "Run a command in a task's container"),
    "inspect": ("commands.task:inspect", "Show everything about tasks"),
    "logs": ("commands.service_logs:logs", "Show what the container of a task writes"),
    "ls": ("commands.task:list_tasks", "List the tasks of all services, with their history"),
    "restart": ("commands.task:restart", "Replace tasks in order, although nothing changed"),
    "rm": ("commands.task:remove", "Remove tasks; with --force also those that have not ended"),
    "why": ("commands.why:task_why", "Explain why a task waits, or is where it is"),
}

_NETWORK: Table = {
    "connect": ("commands.network_connect:connect", "Connect a container to a network"),
    "create": ("commands.network:create", "Create a network"),
    "disconnect": ("commands.network_connect:disconnect", "Disconnect a container from a network"),
    "inspect": ("commands.network:inspect", "Show everything about networks"),
    "ls": ("commands.network:list_networks", "List networks"),
    "prune": ("commands.network_prune:prune", "Remove all unused networks"),
    "rm": ("commands.network:remove", "Remove networks"),
    "trace": ("commands.network_checks:trace", "Show the way to a service, and where it stops"),
    "verify": ("commands.network_checks:verify", "Compare networks with what they should be, and repair them"),
}

_SECRET: Table = {
    "create": ("commands.secret:create", "Create a secret from a file or standard input"),
    "inspect": ("commands.secret:inspect", "Show everything about secrets but their data"),
    "ls": ("commands.secret:list_secrets", "List secrets"),
    "rm": ("commands.secret:remove", "Remove secrets"),
    "update": ("commands.secret:update", "Make the next version of a secret; services roll to it"),
}

_CONFIG: Table = {
    "create": ("commands.config:create", "Create a config from a file or standard input"),
    "inspect": ("commands.config:inspect", "Show everything about configs"),
    "ls": ("commands.config:list_configs", "List configs"),
    "rm": ("commands.config:remove", "Remove configs"),
    "update": ("commands.config:update", "Make the next version of a config; services roll to it"),
}

_IMAGE: Table = {
    "import": ("commands.image:import_image", "Make an image of a root filesystem's tar archive"),
    "load": ("commands.image:load", "Load images from a docker or OCI archive"),
    "ls": ("commands.image:list_images", "List the images of this machine"),
    "rm": ("commands.image:remove", "Remove images from this machine"),
    "tag": ("commands.image:tag", "Give an image another name"),
}

_TOKEN: Table = {
    "create": ("commands.access:create_token", "Make an API token"),
    "exchange": ("commands.access:exchange_token", "Make a client certificate of an API token, for an hour"),
    "ls": ("commands.access:list_tokens", "List API tokens"),
    "rm": ("commands.access:remove_tokens", "Remove API tokens"),
}

_CLIENT_CERT: Table = {
    "create": ("commands.access:create_certificate", "Make a client certificate"),
    "ls": ("commands.access:list_certificates", "List client certificates"),
    "rm": ("commands.access:remove_certificates", "Remove client certificates"),
}

_LAB: Table = {
    "up": ("commands.lab:up", "Make a lab: several hosts on this machine, and a swarm on them"),
    "down": ("commands.lab:down", "Remove a lab, and check that nothing is left"),
    "ls": ("commands.lab:list_labs", "List labs and their hosts"),
    "exec": ("commands.lab:execute", "Run a command inside a host"),
    "kill": ("commands.lab:kill", "Cut a host's power, or kill one of its daemons"),
    "start": ("commands.lab:start", "Give a host its power back, or its daemon"),
    "cut": ("commands.lab:cut", "Pull a host's network cable"),
    "heal": ("commands.lab:heal", "Put a host's network cable back"),
    "logs": ("commands.lab:logs", "Show what a host's daemon writes"),
}

backup = DefaultGroup(
    "backup", help="Back up everything the managers know: `pyswarm backup [FILE]`.", table=_BACKUP, default="create"
)
join_token = DefaultGroup(
    "join-token",
    help="Manage the tokens that let machines join: `join-token worker` shows one, `join-token create` makes one.",
    table=_JOIN_TOKEN,
    default="show",
    no_args_is_help=True,
)
swarm = group(
    "swarm", "Manage the swarm.", {**_SWARM, "inspect": ("commands.swarm_inspect:inspect", "Show the swarm's settings")}
)
node = group("node", "Manage nodes.", _NODE)
operator = group("operator", "Look after the managers.", _OPERATOR)
operator_raft = group("raft", "The managers' consensus.", _OPERATOR_RAFT)
operator_store = group("store", "What the managers' store holds.", _OPERATOR_STORE)
service = group("service", "Manage services.", _SERVICE)
task = group("task", "Look into tasks and their containers, wherever they run.", _TASK)
secret = group("secret", "Manage secrets.", _SECRET)
config = group("config", "Manage configs.", _CONFIG)
network = group("network", "Manage networks.", _NETWORK)
image = group("image", "Manage the images of this machine.", _IMAGE)
token = group("token", "Manage API tokens, by which programs use the swarm over HTTPS.", _TOKEN)
client_cert = group("client-cert", "Manage client certificates, by which people use the swarm remotely.", _CLIENT_CERT)
simulate = group(
    "simulate",
    "What would happen: to this swarm if nodes were lost, or to a whole swarm in one process under faults.",
    {
        "loss": ("commands.simulate_loss:loss", "Tell what would happen if nodes of this swarm were lost"),
        "soak": ("commands.simulate:soak", "Run many seeds, and say what is violated"),
    },
)
lab = group("lab", "A whole swarm on one machine, to try things and to break them. Needs root.", _LAB)

ROOT: Table = {
    **_SWARM,
    "swarm": ("tables:swarm", "Manage the swarm (init, join, leave, … are also here)"),
    "node": ("tables:node", "Manage nodes"),
    "operator": ("tables:operator", "Look after the managers: their consensus, their store, their replicas"),
    "backup": ("tables:backup", "Back up everything the managers know, and look at backups"),
    "restore": ("commands.restore:restore", "Make this machine the manager of the swarm in a backup"),
    "service": ("tables:service", "Manage services"),
    "task": ("tables:task", "Look into tasks and their containers, wherever they run"),
    "apply": ("commands.apply:apply", "Make the changes of a plan, if they would still do what it says"),
    "network": ("tables:network", "Manage networks"),
    "secret": ("tables:secret", "Manage secrets"),
    "config": ("tables:config", "Manage configs"),
    "token": ("tables:token", "Manage API tokens"),
    "client-cert": ("tables:client_cert", "Manage client certificates"),
    "events": ("commands.events:events", "Show what happens in the swarm, or who changed what (--audit)"),
    "image": ("tables:image", "Manage the images of this machine"),
    "images": ("commands.image:list_images", "List the images of this machine"),
    "import": ("commands.image:import_image", "Make an image of a root filesystem's tar archive"),
    "load": ("commands.image:load", "Load images from a docker or OCI archive"),
    "lab": ("tables:lab", "A whole swarm on one machine, to try things and to break them"),
    "simulate": ("tables:simulate", "What would happen if nodes were lost; the whole swarm under faults"),
    "info": ("commands.system:info", "Show what this machine is and its part in the swarm"),
    "version": ("commands.system:version", "Show versions"),
}
