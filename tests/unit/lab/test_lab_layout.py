"""Names, addresses and sizes of a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_lab.errors import LabError
from pyswarm_lab.layout import MAX_HOSTS, SUBNET, Layout, check_size, host_address, host_name


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
    addresses = [host_address(index) for index in range(1, MAX_HOSTS + 1)]
    assert addresses[0] == "192.168.77.11"
    assert host_name(1) == "n1"
    assert len(set(addresses)) == MAX_HOSTS
    assert str(SUBNET.broadcast_address) not in addresses


@pytest.mark.parametrize(("managers", "workers"), [(0, 3), (1, -1), (3, MAX_HOSTS)])
def test_a_size_that_cannot_be_built_is_refused(managers: int, workers: int) -> None:
    with pytest.raises(LabError):
        check_size(managers, workers)
