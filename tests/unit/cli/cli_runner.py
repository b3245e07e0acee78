"""Runs `pyswarm …` in this process, as `main` does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from pyswarm_cli.failures import report
from pyswarm_cli.main import cli


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def run_cli(capture: pytest.CaptureFixture[str], *argv: str) -> Done:
    code = 0
    try:
        cli.main(list(argv), prog_name="pyswarm", standalone_mode=False)
    except Exception as error:
        code = report(error)
    sys.stdout.flush()
    out, err = capture.readouterr()
    return Done(code, out, err)
