"""`--secret` and `--config` of services, as docker has them, and `env=` besides. Pure."""

from __future__ import annotations

from pyswarm_cli.parse.pairs import boolean, csv_fields
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import FileReference

_MAX_MODE = 0o777
_FIELDS = {"source": "name", "src": "name", "target": "target", "uid": "uid", "gid": "gid", "env": "env"}


def secret(text: str) -> FileReference:
    """`NAME` or `source=NAME[,target=PATH][,uid=0][,gid=0][,mode=0444][,env=VARIABLE][,pinned]`."""
    return _reference(text, "secret")


def config(text: str) -> FileReference:
    """The same for a config."""
    return _reference(text, "config")


def _reference(text: str, kind: str) -> FileReference:
    if "=" not in text and "," not in text:
        return FileReference(name=_required(text, text, kind))
    values: dict[str, str] = {}
    mode, pinned = 0, False
    for key, value in csv_fields(text, kind):
        if key in _FIELDS:
            values[_FIELDS[key]] = value
        elif key == "mode":
            mode = _mode(value, text)
        elif key == "pinned":
            pinned = boolean(value, "pinned")
        else:
            raise InvalidArgument(f"invalid field in {kind} request: {key}")
    _required(values.get("name", ""), text, kind)
    return FileReference(**values, mode=mode, pinned=pinned)


def _required(name: str, text: str, kind: str) -> str:
    if not name:
        raise InvalidArgument(f'invalid {kind} "{text}": source is required')
    return name


def _mode(text: str, whole: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 < mode <= _MAX_MODE:
        raise InvalidArgument(f'invalid mode specified in "{whole}": write permission bits as in 0400')
    return mode
