"""Who a container's process is: docker's `USER` forms resolved with the image's own passwd and group. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyswarm_common.errors import InvalidArgument

MAX_ID = 2**31 - 1
MAX_GROUPS = 1024


@dataclass(frozen=True, slots=True)
class ProcessUser:
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


def resolve_user(spec: str, passwd: str, group: str) -> ProcessUser:
    """`spec` is empty, `user`, `uid`, `user:group` or any mix; an unknown number stands for itself."""
    user_part, _, group_part = spec.partition(":")
    name, uid, gid, home = _find_user(user_part or "0", passwd)
    if group_part:
        gid = _find_group(group_part, group)
        return ProcessUser(uid, gid, (gid,), home)
    # The primary group is among the additional ones as well, so that a set-group-id program cannot shed it.
    return ProcessUser(uid, gid, (gid, *_memberships(name, gid, group)), home)


def with_groups(user: ProcessUser, wanted: tuple[str, ...], group: str) -> ProcessUser:
    """The user with more supplementary groups, by the image's names or as numbers."""
    more = tuple(_find_group(name, group) for name in wanted)
    return replace(user, additional_gids=tuple(dict.fromkeys((*user.additional_gids, *more))))


def _find_user(wanted: str, passwd: str) -> tuple[str, int, int, str]:
    number = _number(wanted)
    for fields in _rows(passwd, 7):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and (fields[0] == wanted or uid == number):
            return fields[0], uid, gid, fields[5] or "/"
    if number is None:
        raise InvalidArgument(f"unable to find user {wanted}: no matching entries in passwd file of the image")
    return "", number, 0, "/root" if number == 0 else "/"


def _find_group(wanted: str, group: str) -> int:
    number = _number(wanted)
    for fields in _rows(group, 4):
        gid = _number(fields[2])
        if gid is not None and (fields[0] == wanted or gid == number):
            return gid
    if number is None:
        raise InvalidArgument(f"unable to find group {wanted}: no matching entries in group file of the image")
    return number


def _memberships(name: str, primary: int, group: str) -> tuple[int, ...]:
    found = {
        gid
        for fields in _rows(group, 4)
        if name and name in fields[3].split(",") and (gid := _number(fields[2])) is not None and gid != primary
    }
    return tuple(sorted(found))[:MAX_GROUPS]


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = (line.strip().split(":") for line in text.splitlines())
    return [row for row in rows if len(row) >= columns]


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    value = int(text)
    return value if value <= MAX_ID else None
