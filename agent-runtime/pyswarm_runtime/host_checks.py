"""What a container asks of this host that it may not have: sources of binds, shared mounts, AppArmor. Looks only."""

from __future__ import annotations

import posixpath
from contextlib import suppress
from pathlib import Path

from pyswarm_common.errors import InvalidArgument, Unsupported
from pyswarm_runtime.types import Mount

_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_APPARMOR_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
UNCONFINED = "unconfined"


def check_bind(mount: Mount) -> None:
    """What shall be bound must be there, and be shared where its mounts shall be."""
    if not Path(mount.source).exists():
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    wants_shared = mount.propagation in ("shared", "rshared")
    if not wants_shared and mount.propagation not in ("slave", "rslave"):
        return
    point, fields = _mount_of(mount.source)
    if any(field.startswith("shared:") for field in fields):
        return
    if not wants_shared and any(field.startswith("master:") for field in fields):
        return
    kind = "a shared mount" if wants_shared else "a shared or slave mount"
    raise InvalidArgument(f"path {mount.source} is mounted on {point} but it is not {kind}")


def _mount_of(path: str) -> tuple[str, list[str]]:
    """The mount point that a path lies on, and the optional fields of its line in mountinfo."""
    real = str(Path(path).resolve())
    found: tuple[str, list[str]] = ("/", [])
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split(" ")
        point = words[4].replace("\\040", " ")
        if posixpath.commonpath((point, real)) == point and len(point) >= len(found[0]):
            found = (point, words[6 : words.index("-")])
    return found


def has_apparmor() -> bool:
    with suppress(OSError):
        return _APPARMOR.read_text().startswith("Y")
    return False


def check_apparmor(profile: str) -> None:
    """A profile that is not there would leave the container unconfined: refused instead."""
    if profile in ("", UNCONFINED):
        return
    if not has_apparmor():
        raise Unsupported(f"AppArmor is not enabled on this host: profile {profile} cannot confine a container")
    loaded = {line.rpartition(" (")[0] for line in _APPARMOR_PROFILES.read_text().splitlines()}
    if profile not in loaded:
        raise InvalidArgument(f"AppArmor profile {profile} is not loaded on this host: load it with apparmor_parser")
