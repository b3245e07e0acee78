"""Asking before something that cannot be taken back. Without a terminal only --yes is an answer."""

from __future__ import annotations

import sys

import click

from pyswarm_common.errors import FailedPrecondition


def confirm(what: str, *, yes: bool) -> None:
    """Return if it is to be done. Raises FailedPrecondition where nobody can be asked, Abort for any other word."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise FailedPrecondition(f"{what} must be confirmed: run this on a terminal, or with --yes")
    answer = click.prompt('Type "yes" to go on', default="", show_default=False, err=True)
    if answer.strip() != "yes":
        raise FailedPrecondition("nothing was done")


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask")
