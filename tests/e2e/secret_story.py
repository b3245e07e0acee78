"""What a user did in a lab: everything that was said, was seen in the lists of processes, and is to be kept secret."""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path

from secret_search import Search, Secret, of_bytes, of_private_key, of_text

from pyswarm_common.backup.container import Reader
from pyswarm_common.backup.keys import parse_key
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import Cluster
from pyswarm_lab.lab import Lab
from pyswarm_manager.backup.contents import tables_of
from pyswarm_manager.keyring import KeyringFile

_PERIOD_S = 0.05


@dataclass(frozen=True, slots=True)
class Said:
    """A command, all that it printed, and the secrets that it is for."""

    command: str
    text: str
    shows: frozenset[str]


@dataclass(slots=True)
class Story:
    """One lab. Secrets are named, and never change once they have a name."""

    lab: Lab
    said: list[Said] = field(default_factory=list)
    secrets: dict[str, Secret] = field(default_factory=dict)

    def command(
        self, host: str, *argv: str, stdin: str | None = None, shows: tuple[str, ...] = (), fails: bool = False
    ) -> str:
        """A command inside a host; its standard output, or what it said when it was to fail."""
        done = self.lab.exec(host, argv, stdin=stdin)
        line = f"{host}$ {' '.join(argv)}"
        assert (done.returncode != 0) == fails, f"{line}\n{done.stdout}{done.stderr}\n{self.lab.log(host)[-2000:]}"
        self.said.append(Said(line, done.stdout + done.stderr, frozenset(shows)))
        return done.stderr if fails else done.stdout

    def run(self, host: str, *argv: str, stdin: str | None = None, shows: tuple[str, ...] = ()) -> str:
        return self.command(host, "pyswarm", *argv, stdin=stdin, shows=shows)

    def refused(self, host: str, *argv: str, stdin: str | None = None) -> str:
        return self.command(host, "pyswarm", *argv, stdin=stdin, fails=True)

    def keep(self, *secrets: Secret) -> None:
        for secret in secrets:
            assert self.secrets.setdefault(secret.name, secret) == secret, secret.name

    def keep_token(self, name: str, token: str) -> str:
        """Of a join or API token, whose last part is the secret."""
        self.keep(of_text(name, token.strip().rpartition("-")[2]))
        return token.strip()

    def keep_unlock_key(self, name: str, token: str) -> LockKey:
        key = LockKey.parse(token)
        self.keep(of_bytes(name, key.secret), of_text(f"{name} (text)", token.strip().removeprefix("SWMKEY-1-")))
        return key

    # ---------------------------------------------------------------- what lies on the disks

    def state(self, host: str) -> Path:
        return self.lab.root(host) / "var/lib/pyswarm"

    def keep_managers_keys(self, host: str, unlock_key: LockKey) -> None:
        """What this manager's disk is locked and sealed with; numbered, since they are replaced now and then."""
        certificates = self.state(host) / "certificates"
        master = LockKey(unlock_key.unlock((certificates / "node.lock").read_bytes(), "node.lock"))
        ring = KeyringFile(self.state(host) / "manager/raft-keys", master).load()
        assert ring is not None
        self.keep(of_bytes(f"master key of {host}", master.secret))
        self.keep(*(of_bytes(f"data key {key.id} of {host}", key.key) for key in ring.keys))
        self.keep_node_key(host, master)

    def keep_node_key(self, host: str, master: LockKey | None = None) -> None:
        identity = NodeIdentity.load(self.state(host) / "certificates")
        assert identity is not None
        secret = of_private_key(f"key of node {host}", identity.unlocked(master).key_pem)
        earlier = [known for known in self.secrets.values() if known.forms == secret.forms]
        if not earlier:
            count = sum(known.startswith(secret.name) for known in self.secrets)
            self.keep(Secret(f"{secret.name} ({count + 1})", secret.forms))

    def keep_backups_contents(self, name: str, path: Path, backup_key: str) -> Cluster:
        """The root's key, and all else that the managers' store holds; from a backup, which is the only way out."""
        with path.open("rb") as file:
            reader = Reader(file)
            reader.summary(parse_key(backup_key))
            cluster = tables_of(reader.pieces()).cluster
        assert cluster is not None
        self.keep(of_private_key(f"{name} root key", cluster.root_ca_key))
        return cluster

    def search_disks(self) -> dict[tuple[str, str], set[str]]:
        """The secrets that each file of a host shows: what it keeps (`var`), its logs, and its /run."""
        search, found = Search(self.secrets.values()), {}
        for record in self.lab.hosts:
            kept = self.lab.layout.host_dir(record.name)
            for base, directory in ((kept, kept), (self.lab.root(record.name), self.lab.root(record.name) / "run")):
                for path in regular_files(directory):
                    if names := search.names(path.read_bytes()):
                        found[record.name, str(path.relative_to(base))] = names
                        _assert_private(path)
        return found


def regular_files(directory: Path) -> list[Path]:
    """Below the directory; no sockets, pipes or namespaces."""
    found = []
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name != "netns"]
        for name in names:
            path = Path(parent, name)
            if stat.S_ISREG(path.lstat().st_mode):
                found.append(path)
    return found


def _assert_private(path: Path) -> None:
    about = path.stat()
    assert (about.st_uid, stat.S_IMODE(about.st_mode) & 0o077) == (0, 0), f"{path} can be read by others"


class ProcessWatch:
    """Arguments and environments of every process of the hosts, and of the commands of this test, seen now and then."""

    def __init__(self, lab: Lab) -> None:
        self.seen: set[bytes] = set()
        self._roots = {os.getpid(), *(record.init.pid for record in lab.hosts if record.init is not None)}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> ProcessWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            self.look()

    def look(self) -> None:
        parents = dict(_parents())
        for pid in parents:
            if pid not in self._roots and self._is_ours(pid, parents):
                self.seen |= {_read(pid, "cmdline"), _read(pid, "environ")}

    def _is_ours(self, pid: int, parents: dict[int, int]) -> bool:
        while pid and pid not in self._roots:
            pid = parents.get(pid, 0)
        return pid != 0


def _parents() -> list[tuple[int, int]]:
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    stats = [(pid, _read(pid, "stat").rpartition(b")")[2].split()) for pid in numbers]
    return [(pid, int(words[1])) for pid, words in stats if words]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
