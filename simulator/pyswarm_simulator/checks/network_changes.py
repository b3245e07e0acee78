"""Networks: no service and no task is ever on one that is gone."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import Network, Service, Task
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import NODE_NETWORKS
from pyswarm_simulator.checks.violation import Violation


class NetworkChecks:
    """Told what each index did, in order."""

    def __init__(self) -> None:
        self.all: dict[str, Network] = {}
        self._users: dict[str, frozenset[str]] = {}
        """Service or task -> networks that it is on, or is to be on."""

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        """What an index did, looked at once all of it is done: within an index things may be in any order."""
        is_gone = False
        fresh: dict[str, None] = {}
        for old, new in events:
            match new if new is not None else old:
                case Network() as network:
                    is_gone = is_gone or new is None
                    self._note_network(network, is_there=new is not None)
                case Service() | Task() as user:
                    self._users.pop(user.id, None)
                    if new is not None:
                        self._users[user.id] = frozenset(networks_of(user))
                        fresh[user.id] = None
                case _:
                    pass
        for user_id in self._users if is_gone else fresh:
            for network_id in self._users[user_id] - self.all.keys():
                raise Violation(f"networks: {user_id} is on network {network_id}, which is gone, at index {index}")

    def _note_network(self, network: Network, *, is_there: bool) -> None:
        if is_there:
            self.all[network.id] = network
        else:
            self.all.pop(network.id, None)


def networks_of(user: Service | Task) -> Iterator[str]:
    """A task that waits or has ended is on none, whatever its specification says."""
    if isinstance(user, Service):
        yield from (one.target for one in user.spec.task.networks if one.target not in NODE_NETWORKS)
    elif not user.status.state.is_terminal:
        yield from (one.network_id for one in user.networks if one.addresses)
