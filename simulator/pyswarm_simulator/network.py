"""The network between hosts: delays, loss, doubling, overtaking, one-way cuts. Decides when something arrives, and
knows nothing of what.

Two kinds of traffic: `post` carries messages that may be lost or overtaken, as Raft expects; `Pipe` carries them in
order, as TCP does, which a cut only holds up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pyswarm_simulator.world import World

_UNDERLAY = "10.9.0."
RETRY_S = 0.1
"""TCP sends again after about so long."""


def address_of(host: str, port: int) -> str:
    """Where something listens on host `n3`: IP addresses, since a name would be asked of a resolver."""
    return f"{_UNDERLAY}{host.removeprefix('n')}:{port}"


def host_at(address: str) -> str:
    """Whose address that is."""
    return "n" + address.partition(":")[0].removeprefix(_UNDERLAY)


@dataclass(slots=True)
class NetworkWeather:
    """How messages fare. Probabilities per message."""

    drop: float = 0.0
    duplicate: float = 0.0
    slow: float = 0.0
    """Delayed by up to `slow_s`, so overtaken by later ones."""
    slow_s: float = 0.5
    delay_s: float = 0.002


class Network:
    """Who reaches whom."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = NetworkWeather()
        self._cut_since: dict[tuple[str, str], float] = {}

    # -- cuts ----------------------------------------------------------------------------------------------------------

    def cut(self, sender: str, receiver: str) -> None:
        """Nothing passes in this direction."""
        self._cut_since.setdefault((sender, receiver), self.world.now)

    def heal(self) -> None:
        """Everybody reaches everybody."""
        self._cut_since.clear()

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Whether this direction is cut."""
        return (sender, receiver) in self._cut_since

    def silent_s(self, one: str, other: str) -> float:
        """For how long the two have not been able to converse."""
        since = [self._cut_since.get(pair) for pair in ((one, other), (other, one))]
        return max((self.world.now - at for at in since if at is not None), default=0.0)

    # -- traffic -------------------------------------------------------------------------------------------------------

    def delay(self) -> float:
        """How long a message takes."""
        weather, rng = self.weather, self.world.rng
        if self.world.chance(weather.slow):
            return rng.uniform(0, weather.slow_s)
        return weather.delay_s * rng.uniform(0.2, 2.0)

    def post(self, sender: str, receiver: str, deliver: Callable[[], None]) -> None:
        """A message that may be lost, doubled, or overtaken."""
        world = self.world
        if world.chance(self.weather.drop):
            return

        def arrive() -> None:
            if not self.is_cut(sender, receiver):
                deliver()

        for _ in range(2 if world.chance(self.weather.duplicate) else 1):
            world.after_s(self.delay(), arrive)


class Pipe:
    """One direction of a connection: everything arrives in order, or the connection breaks."""

    def __init__(self, network: Network, sender: str, receiver: str) -> None:
        self._network, self._sender, self._receiver = network, sender, receiver
        self._queue: deque[Callable[[], None]] = deque()
        self._last = 0.0
        self.is_broken = False

    def send(self, arrive: Callable[[], None]) -> None:
        """Put behind what is under way; `arrive` is called at the other end."""
        if self.is_broken:
            return
        self._queue.append(arrive)
        world = self._network.world
        self._last = max(self._last, world.now + self._network.delay())
        world.at(self._last, self._arrive)

    def end(self) -> None:
        """The connection is gone, and what was under way with it."""
        self.is_broken = True
        self._queue.clear()

    def _arrive(self) -> None:
        """Whatever is first; held up while the link is cut."""
        if self.is_broken or not self._queue:
            return
        if self._network.is_cut(self._sender, self._receiver):
            self._network.world.after_s(RETRY_S, self._arrive)
            return
        self._queue.popleft()()
