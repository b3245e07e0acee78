"""Tells what is done as one would type it, with the real output: `n1$ pyswarm service ls`. The demo is written in it.

A step that fails ends the story (`StoryEnded`); whoever tells it cleans up.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyswarm_lab.errors import LabError
from pyswarm_lab.lab import Lab
from pyswarm_lab.machine import environment

T = TypeVar("T")
_POLL_S = 0.25


class StoryEnded(Exception):
    """A step did not do what it should; the message says which and how."""


class Story:
    """The teller. `passed` holds one line per fact that was checked."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.passed: list[str] = []
        self._program = str(Path(sys.executable).parent / "pyswarm")

    def say(self, text: str = "") -> None:
        """A line to the reader, at once."""
        print(text, flush=True)

    def chapter(self, title: str) -> None:
        """A heading."""
        self.say(f"\n\x1b[1m{title}\x1b[0m" if sys.stdout.isatty() else f"\n=== {title}")

    def here(self, *argv: str) -> str:
        """Run `pyswarm …` on this machine, shown with its output as it comes."""
        self.say(f"$ {shlex.join(['pyswarm', *argv])}")
        return self._run([self._program, *argv], "pyswarm")

    def on(self, host: str, *argv: str) -> str:
        """Run a command inside a host, shown with its output as it comes."""
        self.say(f"{host}$ {shlex.join(argv)}")
        try:
            command = self.lab.exec_argv(host, argv)
        except LabError as error:
            raise StoryEnded(str(error)) from None
        return self._run(command, argv[0])

    def _run(self, argv: list[str], name: str) -> str:
        lines: list[str] = []
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.say(f"  {line.rstrip()}")
                lines.append(line)
        if process.returncode != 0:
            raise StoryEnded(f"`{name} …` ended with exit code {process.returncode}")
        return "".join(lines)

    def quietly(self, host: str, *argv: str) -> str:
        """Run a command inside a host without showing it; empty when it fails."""
        try:
            done = self.lab.exec(host, argv, timeout_s=30.0)
        except (LabError, subprocess.TimeoutExpired):
            return ""
        return done.stdout if done.returncode == 0 else ""

    def check(self, fact: str, holds: object) -> None:
        """A fact the reader was promised."""
        if not holds:
            raise StoryEnded(f"not so: {fact}")
        self.passed.append(fact)
        self.say(f"  ✔ {fact}")

    def until(self, fact: str, look: Callable[[], T], within_s: float) -> T:
        """Wait for a fact, and tell how long it took."""
        started = time.monotonic()
        while True:
            found = look()
            took = time.monotonic() - started
            if found:
                self.check(f"{fact} (after {took:.1f} s)", True)
                return found
            if took > within_s:
                raise StoryEnded(f"not within {within_s:.0f} s: {fact}")
            time.sleep(_POLL_S)
