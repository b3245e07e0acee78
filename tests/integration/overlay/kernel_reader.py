"""What a host's kernel holds, read by the tools that administrators use and made comparable: nothing of ours is asked.

Left out is what differs without meaning anything: indexes, handles, counters, timers, what neighbours were learned, and
the hardware addresses of ports that have random ones.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from overlay_lab import Host

LINK_FACTS = ("ifname", "flags", "mtu", "master", "linkinfo")
LOOSE_FLAGS = {"LOWER_UP", "NO-CARRIER", "M-DOWN"}
READ = (
    "ip -j -d link; echo; ip -j addr; echo; ip -j -4 route show table all; echo; ip -j -6 route show table all; echo; "
    "ip -j neigh show nud permanent; echo; bridge -j fdb show; echo; nft -j list ruleset; echo; ip -j rule; echo; "
    "sysctl -n net.ipv4.ip_forward; for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo $f $(cat $f); done"
)


def everything(host: Host, sandboxes: list[str], networks: list[str]) -> dict[str, Any]:
    """By place: the host's own namespace, those of networks, those of sandboxes, and the mounts that keep these."""
    places = {"host": host.netns()}
    places |= {f"network {name}": host.overlay_netns(name) for name in networks}
    places |= {f"sandbox {name}": host.netns(name) for name in sandboxes}
    found = {name: namespace(path) for name, path in places.items()}
    return {**found, "mounts": sorted(line.split()[4] for line in host.mounts())}


def namespace(path: str) -> dict[str, Any]:
    done = subprocess.run(["nsenter", f"--net={path}", "sh", "-c", READ], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"unreadable": done.stderr.strip()}
    links, addresses, routes4, routes6, neighbours, fdb, rules, policies, *rest = done.stdout.split("\n\n")
    found = [link for link in json.loads(links or "[]") if link.get("linkinfo") or link["ifname"] == "lo"]
    random_macs = {link["address"] for link in found if is_port(link)}
    return {
        "links": {link["ifname"]: _link(link) for link in found},
        "addresses": {link["ifname"]: _addresses(link) for link in json.loads(addresses or "[]")},
        "routes": sorted(
            _route(route) for text in (routes4, routes6) for route in json.loads(text or "[]") if not _is_noise(route)
        ),
        "neighbours": sorted(
            f"{one['dst']} {one['dev']} {one.get('lladdr')}" for one in json.loads(neighbours or "[]")
        ),
        "fdb": sorted(_entry(entry) for entry in json.loads(fdb or "[]") if _counts(entry, random_macs)),
        "rules": _rules(json.loads(rules or "{}")),
        "policies": sorted(json.dumps(rule, sort_keys=True) for rule in json.loads(policies or "[]")),
        "settings": sorted("\n".join(rest).split("\n")),
    }


def is_port(link: dict[str, Any]) -> bool:
    """A veth end on a bridge, a tunnel, or a host's end of a sandbox's way out: its own address is random."""
    is_tunnel = link.get("linkinfo", {}).get("info_kind") == "vxlan"
    return is_tunnel or "master" in link or link["ifname"].startswith("ps-g")


def _link(link: dict[str, Any]) -> Any:
    facts = {name: link.get(name) for name in LINK_FACTS if name not in ("flags", "linkinfo")}
    facts["flags"] = sorted(set(link["flags"]) - LOOSE_FLAGS)
    info = link.get("linkinfo", {})
    facts["kind"] = info.get("info_kind")
    port = info.get("info_slave_data", {})
    facts["port"] = {name: port.get(name) for name in ("learning", "flood", "isolated", "state")}
    tunnel = info.get("info_data", {}) if facts["kind"] == "vxlan" else {}
    facts["tunnel"] = {name: tunnel.get(name) for name in ("id", "local", "port", "learning", "proxy")}
    if not is_port(link):
        facts["address"] = link.get("address")
    return facts


def _addresses(link: dict[str, Any]) -> list[str]:
    found = link.get("addr_info", [])
    return sorted(
        f"{one['local']}/{one['prefixlen']} {one.get('address', '')}" for one in found if one.get("scope") != "link"
    )


def _is_noise(route: dict[str, Any]) -> bool:
    return route["dst"].startswith(("fe80:", "ff00:"))


def _route(route: dict[str, Any]) -> str:
    keys = ("type", "dst", "gateway", "dev", "table", "protocol", "metric", "prefsrc")
    return " ".join(f"{key}={route[key]}" for key in keys if key in route)


def _counts(entry: dict[str, Any], random_macs: set[str]) -> bool:
    """Multicast groups that interfaces are in come and go with IPv6; learned entries by themselves."""
    mac = entry["mac"]
    return not mac.startswith(("33:33", "01:00:5e")) and mac not in random_macs and entry.get("state") != ""


def _entry(entry: dict[str, Any]) -> str:
    keys = ("mac", "ifname", "dst", "port", "vni", "vlan", "master", "state")
    return " ".join(f"{key}={entry[key]}" for key in keys if key in entry)


def _rules(listing: dict[str, Any]) -> list[str]:
    """Sorted by what they are; only the rules of one chain have an order, which their numbers keep."""
    found: list[str] = []
    numbers: dict[str, int] = {}
    for item in listing.get("nftables", []):
        for kind, content in item.items():
            if kind == "metainfo":
                continue
            where = f"{content['family']} {content.get('table', content.get('name'))} {content.get('chain', '')}"
            number = numbers[where] = numbers.get(where, 0) + 1 if kind == "rule" else 0
            found.append(f"{kind} {where} {number} {json.dumps(_plain(content), sort_keys=True)}")
    return sorted(found)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(inner) for key, inner in value.items() if key not in ("handle", "packets", "bytes", "index")
        }
    if isinstance(value, list):
        plain = [_plain(inner) for inner in value]
        return sorted(plain, key=lambda one: json.dumps(one, sort_keys=True)) if _is_set(plain) else plain
    return value


def _is_set(values: list[Any]) -> bool:
    """Elements of a set or a map come in any order."""
    return bool(values) and all(isinstance(one, list) and len(one) == 2 for one in values)


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Where two readings differ, for messages."""
    found = []
    for place in sorted({*before, *after}):
        one, other = before.get(place), after.get(place)
        if one == other:
            continue
        if not isinstance(one, dict) or not isinstance(other, dict):
            found.append(f"{place}: {one!r} is now {other!r}")
            continue
        for key in sorted({*one, *other}):
            found += [f"{place}: {key}: {line}"[:1000] for line in _changes(one.get(key), other.get(key))]
    return found


def _changes(one: Any, other: Any) -> list[str]:
    if one == other:
        return []
    if isinstance(one, list) and isinstance(other, list):
        lost, new = [item for item in one if item not in other], [item for item in other if item not in one]
        return [f"- {item}" for item in lost] + [f"+ {item}" for item in new] or [f"{one} in another order: {other}"]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [f"{key}: {one.get(key)!r} is now {other.get(key)!r}" for key in keys if one.get(key) != other.get(key)]
    return [f"{one!r} is now {other!r}"]
