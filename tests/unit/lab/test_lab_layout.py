"""Names, addresses and sizes of a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_lab.errors import LabError
from pyswarm_lab.layout import MAX_HOSTS, SUBNET, Layout, check_size, host_addresses, host_name


@pytest.mark.parametrize("name", ["", "..", "a/b", "Lab", "-x", "a" * 41, "a b"])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="cannot be the name of a lab"):
        Layout(name)


def test_everything_of_a_lab_lies_below_its_own_folder_and_cgroup() -> None:
    layout = Layout("one", Path("/base"))
    assert layout.host_record("n1") == Path("/base/one/n1/host.json")
    assert layout.cgroup("n1") == "pyswarm-lab/one/n1"
    assert layout.cgroup() == "pyswarm-lab/one"


def test_every_host_has_an_address_of_its_own_within_the_subnet() -> None:
    addresses = [address for index in range(1, MAX_HOSTS + 1) for address in host_addresses(index)]
    assert addresses[0] == "192.168.77.11"
    assert host_name(1) == "n1"
    assert len(set(addresses)) == MAX_HOSTS
    assert str(SUBNET.broadcast_address) not in addresses


def test_hosts_of_both_families_are_known_by_ipv4_and_have_the_same_last_digits_in_ipv6() -> None:
    assert host_addresses(1, "dual-stack") == ("192.168.77.11", "fd00:77::11")
    found = [host_addresses(index, "ipv6") for index in range(1, MAX_HOSTS + 1)]
    assert found[0] == ("fd00:77::11",)
    assert len(set(found)) == MAX_HOSTS


@pytest.mark.parametrize(("managers", "workers"), [(0, 3), (1, -1), (3, MAX_HOSTS)])
def test_a_size_that_cannot_be_built_is_refused(managers: int, workers: int) -> None:
    with pytest.raises(LabError):
        check_size(managers, workers)
