"""The plan of a sandbox: applied, nothing is left to do; unneeded work is never planned."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core import plan
from pyswarm_overlay.core.plan import NOTHING, ObservedInterface, ObservedSandbox, WantedInterface

ETH0 = WantedInterface("eth0", "p0", "n1", "02:42:0a:00:01:05", 1450, ("10.0.1.5/24",))
ETH1 = WantedInterface("eth1", "p1", "n2", "02:42:0a:00:02:05", 1450, ("10.0.2.5/24", "10.0.2.6/24"))
EXIT = WantedInterface("eth2", "g0", None, "02:42:ac:12:00:05", 1500, ("172.18.0.5/16",), "172.18.0.1")
ALL = (ETH0, ETH1, EXIT)


def perform(observed: ObservedSandbox, operations: list[plan.Operation]) -> ObservedSandbox:
    """A kernel in miniature: refuses what the real one refuses."""
    interfaces = dict(observed.interfaces)
    gateways, ports = set(observed.default_gateways), set(observed.ports)
    for operation in operations:
        match operation:
            case plan.RemoveInterface(name):
                del interfaces[name]
                gateways = {(gateway, device) for gateway, device in gateways if device != name}
                ports -= {wanted.port for wanted in ALL if wanted.name == name}
            case plan.RemovePort(interface):
                ports.discard(interface.port)
            case plan.CreatePair(interface):
                assert interface.name not in interfaces
                assert interface.port not in ports
                interfaces[interface.name] = ObservedInterface(0, interface.mac, False, frozenset())
                ports.add(interface.port)
            case plan.AddAddress(name, address):
                interfaces[name] = replace(interfaces[name], addresses=interfaces[name].addresses | {address})
            case plan.RemoveAddress(name, address):
                interfaces[name] = replace(interfaces[name], addresses=interfaces[name].addresses - {address})
            case plan.BringUp(name):
                interfaces[name] = replace(interfaces[name], up=True)
            case plan.SetDefaultRoute(name, gateway):
                assert interfaces[name].up
                gateways.add((gateway, name))
    return ObservedSandbox(interfaces, frozenset(gateways), frozenset(ports))


addresses = st.frozensets(st.sampled_from(["10.0.1.5/24", "10.0.2.5/24", "10.0.2.6/24", "172.18.0.5/16", "9.9.9.9/8"]))
interfaces = st.builds(
    ObservedInterface, st.just(0), st.sampled_from([wanted.mac for wanted in ALL]), st.booleans(), addresses
)
states = st.builds(
    ObservedSandbox,
    st.dictionaries(st.sampled_from(["eth0", "eth1", "eth2", "eth3"]), interfaces),
    st.frozensets(st.just(("172.18.0.1", "eth2"))),
    st.frozensets(st.sampled_from(["p0", "p1", "g0"])),
)


@given(states, st.sets(st.sampled_from(ALL)))
def test_whatever_was_there_the_second_plan_is_empty(observed: ObservedSandbox, chosen: set[WantedInterface]) -> None:
    wanted = tuple(sorted(chosen, key=lambda interface: interface.name))
    after = perform(observed, plan.plan_sandbox(wanted, observed))
    assert plan.plan_sandbox(wanted, after) == []
    assert set(after.interfaces) == {interface.name for interface in wanted}


def test_a_new_sandbox() -> None:
    operations = plan.plan_sandbox((ETH0,), NOTHING)
    assert operations == [plan.CreatePair(ETH0), plan.AddAddress("eth0", "10.0.1.5/24"), plan.BringUp("eth0")]


def test_a_lost_address_costs_one_operation() -> None:
    complete = perform(NOTHING, plan.plan_sandbox(ALL, NOTHING))
    damaged = {**complete.interfaces, "eth0": replace(complete.interfaces["eth0"], addresses=frozenset())}
    operations = plan.plan_sandbox(ALL, replace(complete, interfaces=damaged))
    assert operations == [plan.AddAddress("eth0", "10.0.1.5/24")]


@given(st.dictionaries(st.integers(), st.integers()), st.dictionaries(st.integers(), st.integers()))
def test_a_difference_applied_gives_what_was_wanted(wanted: dict[int, int], observed: dict[int, int]) -> None:
    difference = plan.diff(wanted, observed)
    result = dict(observed)
    for key in difference.remove:
        del result[key]
    result.update(difference.put)
    assert result == wanted
    assert bool(difference) == (wanted != observed)
