"""What of the machine's files a lab host has for itself, so that nothing done in a host changes the machine.

`/etc` is a copy (a few MB, made at the host's first start; what is mounted below it, such as a container's resolv.conf,
is copied too, which an overlay would hide). `/root` is an overlay, too large to copy; where the kernel refuses that, or
something is mounted below it, it stays the machine's. Places where programs only keep their own state begin empty. All
of it is in the host's folder, so it outlives the daemon and a power cut, and goes with the lab.

Runs inside the host's mount namespace only, before its daemon starts. Decides nothing about what is in the files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_EMPTY = ("/var/tmp", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers")  # noqa: S108 - each host's own
_OVERLAID = ("/root",)


def make_private(host_dir: Path, name: str) -> None:
    """Mount the host's own directories over the machine's. Raises OSError or CalledProcessError."""
    files = host_dir / "files"
    files.mkdir(mode=0o700, exist_ok=True)
    _copy_etc(files, name)
    for place in filter(os.path.isdir, _EMPTY):
        if not _holds_us(Path(place)):
            _bind_empty(files, Path(place))
    for place in _OVERLAID:
        if not files.is_relative_to(place) and not _has_mounts_below(place):
            _overlay(files, Path(place))


def _copy_etc(files: Path, name: str) -> None:
    """The finished copy appears in one step: a start that was cut short begins it anew."""
    copy, unfinished = files / "etc", files / "etc.unfinished"
    if not copy.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        _run("cp", "-a", "/etc", str(unfinished))
        (unfinished / "hostname").write_text(f"{name}\n")
        unfinished.rename(copy)
    _run("mount", "--bind", str(copy), "/etc")


def _bind_empty(files: Path, place: Path) -> None:
    own = files / place.relative_to("/").as_posix().replace("/", "-")
    own.mkdir(exist_ok=True)
    shutil.copystat(place, own)
    _run("mount", "--bind", str(own), str(place))


def _overlay(files: Path, place: Path) -> None:
    upper, work = files / f"{place.name}-upper", files / f"{place.name}-work"
    for directory in (upper, work):
        directory.mkdir(mode=0o700, exist_ok=True)
    shutil.copystat(place, upper)
    options = f"lowerdir={place},upperdir={upper},workdir={work}"
    # Refused where the host's folder is itself on an overlay (a lab inside a container).
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(place)], check=False, capture_output=True)


def _holds_us(place: Path) -> bool:
    """Whether pyswarm itself lies there: a checkout in /var/tmp would be gone for its own hosts."""
    ours = (Path(__file__), Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix))
    return any(path.is_relative_to(place) or path.resolve().is_relative_to(place) for path in ours)


def _has_mounts_below(place: str) -> bool:
    """They would not be seen through an overlay: programs that run from there would be gone."""
    targets = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return any(target.startswith(f"{place}/") for target in targets)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
