"""Generic resources that an operator gives a node, and what a container is told of those it got."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import GenericResource
from pyswarm_node.generic_resources import MAX_RESOURCES, parse
from pyswarm_node.main import parse as parse_arguments
from pyswarm_worker.core.assembly import generic_environment


def test_named_and_counted() -> None:
    assert parse(["gpu=UUID1", "gpu=UUID2", "ssd=3"]) == (
        GenericResource("gpu", value="UUID1"),
        GenericResource("gpu", value="UUID2"),
        GenericResource("ssd", 3),
    )


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["gpu"], "write 'gpu' as KIND=NAME or KIND=COUNT"),
        (["=3"], "could not parse GenericResource"),
        (["gpu="], "neither a count nor a name"),
        (["gpu=a b"], "neither a count nor a name"),
        (["gpu=0"], "a count is from 1"),
        (["gpu=3", "gpu=A"], "either one number, or a name for each"),
        (["gpu=3", "gpu=4"], "either one number, or a name for each"),
        (["gpu=A", "gpu=A"], "a name is given twice"),
        ([f"gpu=A{number}" for number in range(MAX_RESOURCES + 1)], "too many"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else f"{len(value)}",
)
def test_what_is_wrong_is_said(texts: list[str], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(texts)
    assert words in str(refused.value)


@given(st.lists(st.text(max_size=20), max_size=4))
def test_whatever_is_written_is_read_or_refused(texts: list[str]) -> None:
    try:
        parse(texts)
    except InvalidArgument:
        return


def test_the_daemon_takes_them_on_its_command_line() -> None:
    options = parse_arguments(["--node-generic-resource", "gpu=A", "--node-generic-resource", "ssd=2"])
    assert options.generic_resources == (GenericResource("gpu", value="A"), GenericResource("ssd", 2))


def test_a_container_is_told_as_docker_tells_it() -> None:
    given = (GenericResource("gpu", value="A"), GenericResource("gpu", value="B"), GenericResource("ssd", 2))
    assert generic_environment(given) == ("DOCKER_RESOURCE_GPU=A,B", "DOCKER_RESOURCE_SSD=2")
