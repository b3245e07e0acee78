"""`KEY=VALUE` lists, environment variables and files of them, comma-separated fields.

Pure: the environment and a file's text come as arguments.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping

from pyswarm_common.errors import InvalidArgument


def key_value(text: str, what: str) -> tuple[str, str]:
    """`key=value`; a key alone has an empty value."""
    key, _, value = text.partition("=")
    if not key.strip():
        raise InvalidArgument(f'invalid {what} "{text}": write KEY=VALUE')
    return key, value


def mapping(texts: Iterable[str], what: str) -> dict[str, str]:
    """Several `key=value`; the last of a key wins."""
    return dict(key_value(text, what) for text in texts)


def environment(texts: Iterable[str], own: Mapping[str, str]) -> list[str]:
    """Variables as given; a bare NAME takes its value from our own environment, or is dropped where we have none."""
    out = []
    for text in texts:
        name, has_value, _ = text.partition("=")
        if not name or any(character.isspace() for character in name):
            raise InvalidArgument(f'invalid environment variable "{text}": write NAME=VALUE')
        if has_value:
            out.append(text)
        elif name in own:
            out.append(f"{name}={own[name]}")
    return merge_environment((), out)


def environment_file(text: str, own: Mapping[str, str]) -> list[str]:
    """The lines of an --env-file; empty ones and comments are skipped."""
    lines = (line.lstrip() for line in text.removeprefix("\ufeff").splitlines())
    return environment((line for line in lines if line and not line.startswith("#")), own)


def merge_environment(old: Iterable[str], new: Iterable[str]) -> list[str]:
    """`old` with the variables of `new` put in place of those of the same name."""
    merged = {entry.partition("=")[0]: entry for entry in old}
    for entry in new:
        merged[entry.partition("=")[0]] = entry
    return list(merged.values())


def csv_fields(text: str, what: str) -> list[tuple[str, str]]:
    """The fields of docker's long forms: `type=bind,source=/a,readonly`. Keys come in lower case."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidArgument(f'invalid {what} "{text}": {error}') from None
    fields = rows[0] if rows else []
    if len(rows) > 1 or not all(field.strip() for field in fields) or not fields:
        raise InvalidArgument(f'invalid {what} "{text}": a field is empty')
    pairs = (field.partition("=") for field in fields)
    return [(key.strip().lower(), value if equals else "") for key, equals, value in pairs]


def boolean(text: str, what: str) -> bool:
    """A field's truth; a field without a value is true."""
    if text.lower() in ("", "1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f'invalid value "{text}" for {what}: write true or false')
