"""A flag's value that cannot be: docker's sentence, with the value and the flag, and docker's exit code."""

from __future__ import annotations

import click
import pytest
from cli_runner import run_cli
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.failures import WRONG_FLAG, WrongValue, explain


@pytest.mark.parametrize(
    ("argv", "value", "flag", "reason"),
    [
        ("service create --replicas abc img", "abc", "--replicas", "not a whole number of 0 or more"),
        ("service create --stop-grace-period abc img", "abc", "--stop-grace-period", "not a duration: write"),
        ("service create -l =x img", "=x", "-l, --label", 'invalid label "=x": write KEY=VALUE'),
        ("service create --mode abc img", "abc", "--mode", "not one of 'replicated', 'global'"),
        ("service create --init=maybe img", "maybe", "--init", "write true or false"),
        ("task why --limit abc web.1", "abc", "--limit", "not a whole number"),
        ("service rollback --to x web", "x", "--to", "not a whole number"),
        ("task why --limit 0 web.1", "0", "--limit", "not in the range 1<=x<=1000"),
        ("node update --availability gone n1", "gone", "--availability", "not one of 'active', 'pause', 'drain'"),
        ("token create --role viewer --name x --expires 0s", "0s", "--expires", "it would have expired already"),
        ("client-cert create --role viewer --name x --expires 0", "0", "--expires", "it would have expired already"),
    ],
)
def test_the_value_and_the_flag_are_named(
    capsys: pytest.CaptureFixture[str], argv: str, value: str, flag: str, reason: str
) -> None:
    done = run_cli(capsys, *argv.split())
    assert done.code == WRONG_FLAG
    assert done.err.startswith(f'invalid argument "{value}" for "{flag}" flag: {reason}')
    assert len(done.err.splitlines()) == 1


def test_what_is_no_flag_is_named_too(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_cli(capsys, "service", "diff", "web", "x")
    assert done.code == 1
    assert done.err == "invalid argument for REVISION: 'x' is not a whole number. See 'pyswarm service diff --help'.\n"


@pytest.mark.parametrize("argv", ["service logs --since {} web", "task logs --since {} web.1"])
@pytest.mark.parametrize(
    ("since", "reason"),
    [
        ("foo", "is not a duration or time: write for example 10m"),
        ("nan", "is not a moment: unix seconds of the years"),
    ],
)
def test_a_time_that_is_none(capsys: pytest.CaptureFixture[str], argv: str, since: str, reason: str) -> None:
    """Logs take what events take; what is not a number is no time."""
    done = run_cli(capsys, *argv.format(since).split())
    assert done.code == 1
    assert done.err.startswith(f'"{since}" {reason}')
    assert len(done.err.splitlines()) == 1


@given(value=st.text(), reason=st.text())
def test_whatever_the_value_is_it_is_one_line(value: str, reason: str) -> None:
    option = click.Option(["--flag"])
    for error in (WrongValue(value, reason, option, None), click.BadParameter(reason, None, option)):
        text, code = explain(error)
        assert code == WRONG_FLAG
        assert text.startswith("invalid argument ")
        assert '"--flag" flag:' in text
        assert len(text.splitlines()) == 1
