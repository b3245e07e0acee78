"""`Lab`: a whole cluster's machines on one machine, for users, tests and benchmarks.

Makes hosts out of namespaces, takes their power or their cable away, gives both back, and removes every trace. Decides
nothing about the cluster that runs on them (`pyswarm_lab.cluster` forms it, by the same commands a user types).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pyswarm_lab import cgroups, cluster, leftovers, machine, records, switch
from pyswarm_lab.cluster import Say
from pyswarm_lab.errors import LabError
from pyswarm_lab.layout import BASE, RUN_DIR, STATE_DIR, Families, Layout, check_size, host_addresses, host_name
from pyswarm_lab.processes import ProcessRef, arguments, in_pid_namespace, send_signal, wait_gone
from pyswarm_lab.records import HostRecord, SwitchRecord

_END_TIMEOUT_S = 30.0
_PARALLEL = 4
_PROCESS_MODULES = {
    "manager": ("pyswarm_manager", "pyswarm-manager"),
    "pyswarmd": ("pyswarm_node", "pyswarmd"),
}


def default_daemon(cgroup: str) -> tuple[str, ...]:
    """The command line of pyswarmd on a lab host."""
    program = Path(sys.executable).parent / "pyswarmd"
    options = ("--state-dir", STATE_DIR, "--run-dir", RUN_DIR, "--cgroup-parent", f"/{cgroup}")
    return (str(program), *options)


class Lab:
    """One laboratory, found by its name. Every call works on what is on disk and in the kernel; none is cached."""

    def __init__(self, name: str = "lab", base: Path = BASE) -> None:
        self.layout = Layout(name, base)

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.layout.name

    # ---------------------------------------------------------------- making

    @classmethod
    def up(
        cls,
        name: str = "lab",
        managers: int = 3,
        workers: int = 2,
        *,
        init: bool = True,
        families: Families = "ipv4",
        daemon: Sequence[str] | None = None,
        base: Path = BASE,
        say: Say = lambda line: None,
    ) -> Lab:
        """Make a lab; with `init`, form a cluster in it. What was made is removed again when that fails.

        `daemon` is the command line that each host runs in place of pyswarmd; `families` is what hosts have addresses
        of (the switch has both).
        """
        check_size(managers, workers)
        _need_root()
        lab = cls(name, base)
        lab._refuse_leftovers()
        try:
            lab._build(managers, workers, families, daemon, say)
            if daemon is None:
                cluster.wait_daemons(lab)
            if init:
                cluster.form_cluster(lab, say)
        except BaseException:
            say("Something went wrong: removing what was made of the lab.")
            lab._last_words(say)
            lab.down()
            raise
        return lab

    def _refuse_leftovers(self) -> None:
        running = leftovers.first_processes(self.layout)
        remove = f"pyswarm lab down --name {self.name}"
        if running:
            raise LabError(f"Lab {self.name} is up already ({len(running) - 1} hosts run). Remove it first: {remove}")
        if self.layout.dir.exists() or cgroups.existing(self.layout.cgroup()):
            raise LabError(f"Lab {self.name} left something behind when it ended. Clean up first: {remove}")

    def _build(self, managers: int, workers: int, families: Families, daemon: Sequence[str] | None, say: Say) -> None:
        self.layout.dir.mkdir(mode=0o700, parents=True)
        machine.start("net", "pyswarm_lab.switch_init", (str(self.layout.dir),), self._switch_ready)
        say(f"Lab {self.name}: a switch in a network namespace of its own, {managers} managers and {workers} workers")
        for index in range(1, managers + workers + 1):
            name = host_name(index)
            argv = tuple(daemon) if daemon is not None else default_daemon(self.layout.cgroup(name))
            role = "manager" if index <= managers else "worker"
            self.layout.host_dir(name).mkdir(mode=0o700)
            address, *more = host_addresses(index, families)
            self._save(HostRecord(name, index, address, role, argv, more_addresses=tuple(more)))
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(self.start, [record.name for record in self.hosts]))
        for record in self.hosts:
            say(f"  {record.name}  {', '.join(record.addresses)}  up")

    def _switch_ready(self, holder: ProcessRef) -> None:
        records.save(self.layout.switch_record, SwitchRecord(holder))
        switch.build(holder)

    def _last_words(self, say: Say) -> None:
        """The last words of each daemon: the folder goes away."""
        for record in self.hosts:
            for line in self.log(record.name).splitlines()[-3:]:
                say(f"  {record.name} pyswarmd: {line[:300]}")

    # ---------------------------------------------------------------- looking

    @property
    def hosts(self) -> list[HostRecord]:
        """The hosts, in order; `init` says what their first process is or was."""
        return records.hosts(self.layout)

    def host(self, name: str) -> HostRecord:
        """One host. Raises LabError when there is none of that name."""
        return records.host(self.layout, name)

    def is_running(self, name: str) -> bool:
        """Whether the host has power."""
        init = self.host(name).init
        return init is not None and init.is_alive()

    def is_cut(self, name: str) -> bool:
        """Whether its cable is pulled."""
        return not switch.ports(self._holder()).get(name, False)

    def root(self, name: str) -> Path:
        """The host's root directory as seen from here (`root("n1") / "run/pyswarm/pyswarm.sock"`)."""
        return Path(f"/proc/{self._init(name).pid}/root")

    def daemon_status(self, name: str) -> str:
        """`running`, or how the host's daemon ended."""
        try:
            return (self.layout.host_dir(self.host(name).name) / "daemon").read_text().strip()
        except FileNotFoundError:
            return "not started"

    def log(self, name: str) -> str:
        """What the host's daemon wrote so far."""
        try:
            return self.log_path(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def log_path(self, name: str) -> Path:
        """The file the daemon's output goes to."""
        return self.layout.host_dir(self.host(name).name) / "pyswarmd.log"

    def processes(self, name: str, process: str) -> list[ProcessRef]:
        """The host's processes of that kind ("manager" or "pyswarmd")."""
        words = _PROCESS_MODULES[process]
        return [found for found in in_pid_namespace(self._init(name)) if _runs(arguments(found.pid), words)]

    # ---------------------------------------------------------------- using

    def exec_argv(self, name: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside the host."""
        return ["nsenter", "-t", str(self._init(name).pid), "-m", "-u", "-n", "-p", "--", *argv]

    def exec(
        self, name: str, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 120.0, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host and return its output; with `check`, its failure raises CalledProcessError."""
        return self._run(self.exec_argv(name, argv), stdin, timeout_s, check)

    def outside(self, argv: Sequence[str], *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command beside the hosts, on the switch: as a client of the cluster would."""
        return self._run(["nsenter", "-t", str(self._holder().pid), "-n", "--", *argv], None, timeout_s, False)

    @staticmethod
    def _run(argv: list[str], stdin: str | None, timeout_s: float, check: bool) -> subprocess.CompletedProcess[str]:
        standard_input = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            argv,
            **standard_input,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=check,
            env=machine.environment(),
        )

    # ---------------------------------------------------------------- faults

    def kill(self, name: str, process: str | None = None) -> None:
        """Cut the host's power; with `process`, SIGKILL only that one ("manager" or "pyswarmd")."""
        if process is not None:
            self._kill_process(name, process)
            return
        with self._locked(name) as record:
            if record.init is None or not record.init.is_alive():
                raise LabError(f"Host {name} is off already. Start it: pyswarm lab start {name}")
            # The cable first: a machine without power says goodbye to nobody.
            with contextlib.suppress(LabError):
                switch.set_port(self._holder(), name, up=False)
            self._end(record.init)
            self._save(msgspec.structs.replace(record, init=None))
            with contextlib.suppress(LabError):
                switch.unplug(self._holder(), name)
            cgroups.remove(self.layout.cgroup(name))

    def _kill_process(self, name: str, process: str) -> None:
        if process not in _PROCESS_MODULES:
            raise LabError(f"No such process: {process}. Choose one of {', '.join(_PROCESS_MODULES)}.")
        found = self.processes(name, process)
        if not sum(send_signal(one, signal.SIGKILL) for one in found):
            raise LabError(f"Host {name} runs no {process}.")
        for one in found:
            wait_gone(one, _END_TIMEOUT_S)

    def start(self, name: str) -> None:
        """Give the host power, with its state as it was; on a running host, start its daemon again if it ended."""
        with self._locked(name) as record:
            if record.init is not None and record.init.is_alive():
                send_signal(record.init, signal.SIGUSR1)
                return
            holder = self._holder()
            cgroups.remove(self.layout.cgroup(name))
            switch.unplug(holder, name)
            arguments_of_init = (str(self.layout.host_dir(name)), name, STATE_DIR, RUN_DIR, *record.daemon)

            def ready(init: ProcessRef) -> None:
                self._save(msgspec.structs.replace(record, init=init))
                switch.plug(holder, name, init, record.addresses)

            machine.start("net,pid,mnt,uts", "pyswarm_lab.host_init", arguments_of_init, ready)

    def cut(self, name: str) -> None:
        """Pull the host's cable at the switch."""
        self._init(name)
        switch.set_port(self._holder(), name, up=False)

    def heal(self, name: str) -> None:
        """Put the cable back."""
        self._init(name)
        switch.set_port(self._holder(), name, up=True)

    # ---------------------------------------------------------------- removing

    def down(self) -> list[str]:
        """Remove the lab, whatever is left of it. Returns what could not be removed: empty is clean."""
        _need_root()
        processes = leftovers.first_processes(self.layout)
        recorded = [record.init for record in self.hosts if record.init is not None]
        processes += [process for process in recorded if process not in processes and process.is_alive()]
        inventory = leftovers.take_inventory(processes)
        for process in processes:
            send_signal(process, signal.SIGKILL)
        for process in processes:
            wait_gone(process, _END_TIMEOUT_S)
        self._remove_files()
        return self._verified(inventory)

    def exists(self) -> bool:
        """Whether anything of the lab is there, running or not."""
        return bool(
            self.layout.dir.exists() or leftovers.first_processes(self.layout) or cgroups.existing(self.layout.cgroup())
        )

    def _remove_files(self) -> None:
        if self.layout.dir.exists():
            shutil.rmtree(self.layout.dir)
        with contextlib.suppress(OSError):
            self.layout.base.rmdir()

    def _verified(self, inventory: leftovers.Inventory) -> list[str]:
        """The kernel takes namespaces and cgroups apart in its own time: look again until clean, for a few seconds."""
        deadline = time.monotonic() + 10.0
        while True:
            cgroups.remove(self.layout.cgroup())
            cgroups.remove_empty_root()
            found = leftovers.look(self.layout, inventory)
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    # ---------------------------------------------------------------- parts

    def _holder(self) -> ProcessRef:
        record = records.load(self.layout.switch_record, SwitchRecord)
        if record is None or not record.holder.is_alive():
            raise LabError(f"Lab {self.name} has no switch (any more). Remove it: pyswarm lab down --name {self.name}")
        return record.holder

    def _init(self, name: str) -> ProcessRef:
        init = self.host(name).init
        if init is None or not init.is_alive():
            raise LabError(f"Host {name} is off. Start it: pyswarm lab start {name}")
        return init

    def _end(self, init: ProcessRef) -> None:
        send_signal(init, signal.SIGKILL)
        if not wait_gone(init, _END_TIMEOUT_S):
            raise LabError(f"Process {init.pid} does not end; is one of its children stuck in the kernel?")

    def _save(self, record: HostRecord) -> None:
        records.save(self.layout.host_record(record.name), record)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[HostRecord]:
        """The host's record, while nobody else starts or kills it."""
        record = self.host(name)
        fd = os.open(self.layout.host_dir(record.name) / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield self.host(name)
        finally:
            os.close(fd)


def _runs(argv: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Whether a command line is `…/pyswarmd …` or `python -m pyswarm_node …`."""
    names = [Path(argument).name for argument in argv[:4]]
    return any(name == word or name.startswith(f"{word}.") for name in names for word in words)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise LabError("A lab needs root: it makes namespaces and interfaces. Run it with sudo.")
