"""Placement constraints, as the scheduler reads them."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.errors import InvalidArgument
from pyswarm_manager.api.validate.fields import Violation
from pyswarm_manager.planner.schedule.constraints import parse_constraint

MAX_CONSTRAINT_LENGTH = 512


def check_constraint(text: str) -> Iterator[Violation]:
    if len(text) > MAX_CONSTRAINT_LENGTH:
        yield "", f"a constraint is too long: {MAX_CONSTRAINT_LENGTH} characters at most"
        return
    try:
        parse_constraint(text)
    except InvalidArgument as error:
        yield "", str(error)
