"""The contents of /etc/hosts, /etc/hostname and /etc/resolv.conf in a container. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_common.errors import InvalidArgument

_LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts_file(hostname: str, extra_hosts: Sequence[str]) -> str:
    """`extra_hosts` are `name:address`; the address may hold colons, the name may not."""
    lines = [_LOCALHOST]
    for entry in extra_hosts:
        name, colon, address = entry.partition(":")
        if not (name and colon and address) or any(character.isspace() for character in entry):
            raise InvalidArgument(f"invalid extra host '{entry}': write it as name:address")
        lines.append(f"{address.strip('[]')}\t{name}\n")
    lines.append(f"127.0.1.1\t{hostname}\n" if hostname else "")
    return "".join(lines)


def resolv_conf(servers: Sequence[str], search: Sequence[str], options: Sequence[str], host: str) -> str:
    """What was asked for; what was not is taken from the host's own file, without its loopback servers."""
    kept = _host_lines(host)
    lines = [f"nameserver {server}" for server in servers] or kept["nameserver"]
    lines += [f"search {' '.join(search)}"] if search else kept["search"]
    lines += [f"options {' '.join(options)}"] if options else kept["options"]
    text = "\n".join(lines) + "\n"
    if len(text.splitlines()) != len(lines):
        raise InvalidArgument("invalid DNS setting: servers, search domains and options are single words")
    return text


def _host_lines(host: str) -> dict[str, list[str]]:
    kept: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in host.splitlines():
        key, _, value = line.strip().partition(" ")
        is_loopback = key == "nameserver" and value.strip().startswith(("127.", "::1"))
        if key in kept and value.strip() and not is_loopback:
            kept[key].append(f"{key} {value.strip()}")
    return kept
