"""`--plan`, for every command that moves tasks: ask what it would do, show it, and write it down for `pyswarm apply`.

A command makes its requests as always and hands them over here in place of sending them. Nothing is changed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pyswarm_common.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from pyswarm.v1 import plans_pb2
    from pyswarm_cli.connection import Connection

FORMAT = 1
"""Of the files that are written."""


@dataclass(frozen=True, slots=True)
class Planning:
    """What the user wants of `--plan`. False if nothing: then the command does what it says."""

    wanted: bool
    out: str
    format_: str

    def __bool__(self) -> bool:
        return self.wanted

    def show(self, connection: Connection, requests: Sequence[plans_pb2.PlannedRequest]) -> None:
        """Ask, and print or write the answer."""
        # Most commands run without --plan, and do not wait for what it needs.
        from pyswarm.v1 import plans_pb2 as pb  # noqa: PLC0415
        from pyswarm_cli.connection import call  # noqa: PLC0415
        from pyswarm_cli.output.rows import show_objects  # noqa: PLC0415
        from pyswarm_cli.views import plans as view  # noqa: PLC0415

        if self.out:
            refuse_credentials(requests)
        answer = call(connection.plans.PlanChange, pb.PlanChangeRequest(requests=requests))
        found = answer.forecast
        if self.format_:
            click.echo(show_objects([view.forecast_json(found)], self.format_), nl=False)
        else:
            click.echo(view.plan_text(found), nl=False)
        if self.out and found.cut_off:
            raise FailedPrecondition(f"{self.out} was not written: a plan that was cut off cannot be applied")
        if self.out:
            plan = pb.Plan(
                format=FORMAT,
                cluster_id=answer.cluster_id,
                index=found.index,
                outcome=found.outcome,
                requests=requests,
            )
            write_plan(self.out, plan)
            click.echo(f"the plan is in {self.out}: pyswarm apply {self.out}", err=True)


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags, and gives the command a `planning`."""

    @click.option("--plan", is_flag=True, help="Show what it would do to which tasks, and change nothing")
    @click.option("-o", "--out", metavar="FILE", default="", help="With --plan: write it for `pyswarm apply FILE`")
    @click.option(
        "--format", "plan_format", metavar="FORMAT", default="", help='With --plan: "json", or a Go-style template'
    )
    @functools.wraps(command)
    def planned(*args: Any, plan: bool, out: str, plan_format: str, **options: Any) -> Any:
        if (out or plan_format) and not plan:
            raise InvalidArgument("--out and --format go with --plan")
        return command(*args, planning=Planning(plan, out, plan_format), **options)

    return planned


def refuse_credentials(requests: Sequence[plans_pb2.PlannedRequest]) -> None:
    """No file gets what opens a registry."""
    for request in requests:
        for change in (request.create_service, request.update_service):
            if change.spec.task.container.registry_auth:
                raise InvalidArgument(
                    "no plan file holds credentials of registries: plan without --with-registry-auth, or without --out"
                )


def write_plan(path: str, plan: plans_pb2.Plan) -> None:
    """For its owner only: the environment of a container is in it."""
    from google.protobuf import json_format  # noqa: PLC0415

    text = json_format.MessageToJson(plan, preserving_proto_field_name=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text + "\n")
