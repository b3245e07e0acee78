"""Docker's `--change` instructions for an imported image: `CMD ["sh"]`, `ENV A=b`, `WORKDIR /srv`… Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.types import ImageConfig

MAX_CHANGES = 1000


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    if len(changes) > MAX_CHANGES:
        raise InvalidArgument(f"{len(changes)} changes are more than the {MAX_CHANGES} that an image may have")
    for change in changes:
        config = _apply(config, change)
    return config


def _apply(config: ImageConfig, change: str) -> ImageConfig:
    keyword, _, rest = change.strip().partition(" ")
    value = rest.strip()
    if not value:
        raise InvalidArgument(f"invalid change '{change}': write it as in a Dockerfile, such as CMD [\"sh\"]")
    replace = msgspec.structs.replace
    match keyword.upper():
        case "CMD":
            return replace(config, cmd=_command(value))
        case "ENTRYPOINT":
            return replace(config, entrypoint=_command(value))
        case "ENV":
            return replace(config, env=_merge_env(config.env, _pairs(change, value)))
        case "LABEL":
            return replace(config, labels={**config.labels, **_pairs(change, value)})
        case "WORKDIR":
            return replace(config, working_dir=value)
        case "USER":
            return replace(config, user=value)
        case "STOPSIGNAL":
            return replace(config, stop_signal=value)
        case "EXPOSE":
            ports = (port if "/" in port else f"{port}/tcp" for port in value.split())
            return replace(config, exposed_ports=tuple(sorted({*config.exposed_ports, *ports})))
        case "VOLUME":
            return replace(config, volumes=tuple(sorted({*config.volumes, *_words(value)})))
        case _:
            raise InvalidArgument(f"{keyword.upper()} is not a valid change command")


def _command(value: str) -> tuple[str, ...]:
    """The JSON form as it is; the shell form through a shell, as a Dockerfile does."""
    return _json_list(value) or ("/bin/sh", "-c", value)


def _words(value: str) -> tuple[str, ...]:
    return _json_list(value) or tuple(value.split())


def _json_list(value: str) -> tuple[str, ...] | None:
    if not value.startswith("["):
        return None
    try:
        return decode_json(value.encode(), tuple[str, ...])
    except Malformed:
        return None


def _pairs(change: str, value: str) -> dict[str, str]:
    """`A=b C="d e"`, or the old form `A b c`."""
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise InvalidArgument(f"invalid change '{change}': {error}") from error
    if "=" not in words[0]:
        name, _, rest = value.partition(" ")
        return {name: rest.strip()}
    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        raise InvalidArgument(f"invalid change '{change}': every word must be of the form name=value")
    return {name: text for name, _, text in pairs}


def _merge_env(env: Sequence[str], added: dict[str, str]) -> tuple[str, ...]:
    merged = {entry.partition("=")[0]: entry for entry in env}
    merged.update({name: f"{name}={value}" for name, value in added.items()})
    return tuple(merged.values())
