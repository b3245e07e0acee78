"""This node's end of encrypted networks: keys, peers, and the tunnels between them, kept as they should be.

Devices exist while a table of an encrypted network is on this host, and a while longer. Who the peers are, managers say
(`update_peers`); which keys there are, `core.rotation` decides, and whoever asked hears of it (`on_keys`). `run` is the
supervisor: it makes a pass when something changed or a process died, more often while handshakes are awaited, and from
time to time anyway. Without it everything still works but rotation and repair.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from pyswarm_common.errors import PyswarmError, Unsupported
from pyswarm_common.network_options import is_encrypted
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.refusals import kernel_errors
from pyswarm_overlay.types import NetworkTable

from . import keys as making
from .core import rotation
from .core.peers import OwnKey
from .core.rotation import Quiet, Step
from .devices import best_kind
from .peer_file import PeerFile
from .tunnels import PortTaken, Seen, Tunnels
from .types import TunnelKey, TunnelPeer, checked

log = logging.getLogger(__name__)

_GATHER_S = 0.15
_SHORTEST_WAIT_S = 0.1
_UNSETTLED_WAIT_S = 5.0
_WAIT_S = 15.0
_LINGER_S = 60.0
_TRIES = 4


class Encryption:
    """Of one host."""

    def __init__(self, ground: Ground, tables: Callable[[], Iterable[NetworkTable]]) -> None:
        """`tables` are those that this host has."""
        self._ground = ground
        self._tables = tables
        directory = ground.config.run_dir
        self._key_file = making.KeyFile(directory / "tunnel-keys.json")
        self._peer_file = PeerFile(directory / "tunnel-peers.json")
        self._keys = self._key_file.load()
        self._peers: dict[str, TunnelPeer] = self._peer_file.load()
        self._tunnels: Tunnels | None = None
        self._seen: Seen | None = None
        self._quiet = Quiet()
        self._period_s = 0.0
        self._unneeded_since = 0.0
        self._is_rotation_asked = False
        self._wait_s = _SHORTEST_WAIT_S
        self._lock = asyncio.Lock()
        self._kick = asyncio.Event()
        self._watched: dict[str, tuple[int, int]] = {}
        """Device -> its process, and the descriptor of that."""
        self.on_keys: Callable[[], None] = lambda: None
        """Called when what `announced` says has changed."""
        self.unable = ""
        """Why this node cannot encrypt; empty: it can."""

    # -- what others say and ask -----------------------------------------------------------------------------------

    def announced(self) -> tuple[TunnelKey, ...]:
        """To be announced to the managers, the newest last. None until an encrypted network was needed here."""
        return tuple(key.announced for key in self._keys if not key.retired_at)

    async def look(self) -> None:
        """Find out whether this node can encrypt."""
        try:
            await self._ground.threads.run(partial(best_kind, self._ground))
            self.unable = ""
        except Unsupported as error:
            self.unable = str(error)

    async def update_peers(
        self, peers: Iterable[TunnelPeer], removed: Iterable[str] = (), *, complete: bool = False
    ) -> None:
        """What the managers say of them. When this returns, whoever was removed is not let in any more."""
        known = {} if complete else dict(self._peers)
        for node_id in removed:
            known.pop(node_id, None)
        known.update((peer.node_id, checked(peer)) for peer in peers)
        if known == self._peers:
            return
        self._peers = known
        self._peer_file.save(known.values())
        if self._keys and self._is_needed():
            with suppress(PyswarmError, OSError):  # the supervisor tries again, and says what it was
                await self._bring()
        self.kick()

    def set_period(self, period_s: float) -> None:
        """How old a key may become; zero: as by default."""
        self._period_s = period_s
        self.kick()

    def rotate(self) -> None:
        """Make another key now, whatever the age of this one."""
        self._is_rotation_asked = True
        self.kick()

    async def ready(self, table: NetworkTable) -> None:
        """To be called before a network's devices are made: an encrypted one needs the tunnels' devices."""
        if is_encrypted(table.options):
            with kernel_errors(f"the tunnels of network {table.name}"):
                await self._bring()
            self.kick()

    def heed(self, table: NetworkTable) -> None:
        """A table is here: if its network is encrypted, the tunnels are made before the first sandbox needs them."""
        if is_encrypted(table.options):
            self.kick()

    def kick(self) -> None:
        """Something changed: a pass is made soon."""
        self._wait_s = _SHORTEST_WAIT_S
        self._kick.set()

    # -- the supervisor --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s):
                        await self._kick.wait()
                await asyncio.sleep(_GATHER_S)  # changes come together, and the next handshake a little later
                self._kick.clear()
                await self._pass()
        finally:
            self._watch({})

    async def _pass(self) -> None:
        """Never fails: what could not be done is said, and tried again."""
        try:
            if self._is_needed():
                await self._bring()
                await self._advance()
            else:
                await self._let_go()
        except (PyswarmError, OSError) as error:
            log.warning("encrypted networks: %s", error)
            self._wait_s = min(max(self._wait_s, 1.0) * 2, _WAIT_S)

    def _is_needed(self) -> bool:
        return any(is_encrypted(table.options) for table in self._tables())

    async def _bring(self) -> None:
        """One pass of the tunnels, with keys if there are none yet."""
        async with self._lock:
            self._unneeded_since = 0.0
            if self._tunnels is None:
                kind = await self._ground.threads.run(partial(best_kind, self._ground))
                self._tunnels = Tunnels(self._ground, kind)
                log.info("encrypted networks: WireGuard by %s", kind.name)
            if not self._keys:
                await self._make_key()
            self._seen = await self._bring_with_free_ports(self._tunnels)
            self._watch(self._tunnels.kind.processes())
            self._pace()

    async def _bring_with_free_ports(self, tunnels: Tunnels) -> Seen:
        for _ in range(_TRIES):
            try:
                return await self._ground.threads.run(partial(tunnels.bring, self._keys, tuple(self._peers.values())))
            except PortTaken as taken:
                log.warning("encrypted networks: %s by another program: taking another", taken)
                await self._move_port(taken.key)
        return await self._ground.threads.run(partial(tunnels.bring, self._keys, tuple(self._peers.values())))

    def _pace(self) -> None:
        """Handshakes are awaited with patience that grows, as a peer may be down for good."""
        assert self._seen is not None
        if self._seen.is_settled and len(self._keys) == 1:
            self._wait_s = _WAIT_S
        else:
            self._wait_s = min(self._wait_s * 1.2, _UNSETTLED_WAIT_S if len(self._keys) == 1 else 1.0)

    async def _advance(self) -> None:
        """The next step of a rotation, if there is one to take."""
        async with self._lock:
            if self._seen is None or not self._keys:
                return
            now, older = time.time(), self._keys[0]
            self._quiet = self._quiet.seen(self._seen.found.get(older.slot), now)
            step = rotation.next_step(
                self._keys, self._peers.values(), self._seen.found, self._quiet, now, self._period()
            )
            if self._is_rotation_asked and len(self._keys) == 1:
                step = Step.MAKE
            await self._take(step, now)

    def _period(self) -> float:
        return rotation.period_of(self._period_s)

    async def _take(self, step: Step, now: float) -> None:
        match step:
            case Step.STAY:
                return
            case Step.MAKE:
                self._is_rotation_asked = False
                await self._make_key()
                # Its device must know everybody before anybody knows it.
                assert self._tunnels is not None
                self._seen = await self._bring_with_free_ports(self._tunnels)
            case Step.RETIRE:
                self._quiet = Quiet()
                self._set_keys((replace(self._keys[0], retired_at=now), *self._keys[1:]))
            case Step.DROP:
                self._set_keys(self._keys[1:])
        log.info("encrypted networks: %s", step.value)
        self.on_keys()
        self.kick()

    async def _let_go(self) -> None:
        """No encrypted network is on this host any more."""
        now = time.time()
        self._unneeded_since = self._unneeded_since or now
        self._wait_s = _WAIT_S
        if now - self._unneeded_since < _LINGER_S or not await self._is_there():
            return
        async with self._lock:
            if not self._is_needed():
                await self._remove()

    async def _is_there(self) -> bool:
        """Whether there is anything to remove."""
        return await self._ground.threads.run(lambda: self._ground.inner.exists)

    async def _remove(self) -> None:
        """The devices and the namespace; keys stay for as long as they are young."""
        self._watch({})
        await self._ground.threads.run(self._remove_all)
        self._tunnels, self._seen = None, None
        self._set_keys(self._keys[-1:])
        self.on_keys()

    def _remove_all(self) -> None:
        """Blocking. Without WireGuard (it was uninstalled) there are no devices; the namespace goes all the same."""
        try:
            tunnels = self._tunnels or Tunnels(self._ground, best_kind(self._ground))
        except Unsupported:
            self._ground.inner.remove()
        else:
            tunnels.remove()

    # -- keys ------------------------------------------------------------------------------------------------------

    async def _make_key(self) -> None:
        key = await self._ground.threads.run(partial(making.new_key, self._keys, time.time()))
        self._set_keys((*self._keys, key))
        if len(self._keys) == 1:
            self.on_keys()

    async def _move_port(self, key: OwnKey) -> None:
        taken = [one.port for one in self._keys]
        port = await self._ground.threads.run(partial(making.free_port, taken))
        self._set_keys([replace(one, port=port) if one is key else one for one in self._keys])
        self.on_keys()

    def _set_keys(self, keys: Sequence[OwnKey]) -> None:
        """On disk first: a device must not have a key that a new daemon would not know."""
        self._key_file.save(keys)
        self._keys = tuple(keys)

    # -- processes -------------------------------------------------------------------------------------------------

    def _watch(self, processes: dict[str, int]) -> None:
        """Be woken when a device's process ends."""
        for device in [known for known, (pid, _) in self._watched.items() if processes.get(known) != pid]:
            self._unwatch(device)
        for device, pid in processes.items():
            if device not in self._watched:
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    self.kick()
                    continue
                self._watched[device] = pid, pidfd
                asyncio.get_running_loop().add_reader(pidfd, self._died, device)

    def _unwatch(self, device: str) -> None:
        _, pidfd = self._watched.pop(device)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)

    def _died(self, device: str) -> None:
        self._unwatch(device)
        wanted = {self._tunnels.name(key.slot) for key in self._keys} if self._tunnels is not None else set()
        if device in wanted:
            log.warning("the process of tunnel %s ended: it is started again", device)
            self.kick()

    # -- end -------------------------------------------------------------------------------------------------------

    async def observe(self) -> list[str]:
        """What is not as it should be; nothing is said of rotations, in which handshakes decide what that is."""
        async with self._lock:
            peers = tuple(self._peers.values())
            is_moving = len(self._keys) != 1 or any(len(peer.keys) > 1 for peer in peers)
            if self._tunnels is None or is_moving or not self._is_needed():
                return []
            return await self._ground.threads.run(partial(self._tunnels.observe, self._keys, peers))

    async def repair(self) -> None:
        """Make it so."""
        if self._is_needed():
            await self._bring()

    @property
    def peer_count(self) -> int:
        """So many nodes this one has tunnels to."""
        return len(self._peers) if self._seen is not None else 0

    async def close(self) -> None:
        """Let go; the data plane goes on."""
        async with self._lock:
            self._watch({})
            await self._ground.threads.run(self._ground.inner.close)
            self._tunnels = None

    async def destroy(self) -> None:
        """Remove everything, keys too."""
        async with self._lock:
            if await self._is_there():
                await self._remove()
            self._keys, self._peers = (), {}
            self._key_file.remove()
            self._peer_file.remove()
