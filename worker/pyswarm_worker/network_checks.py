"""What this node's networks are like, for managers: verified now, or one side of a way through them.

Decides nothing: the overlay looks; here its words are put on the wire.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from pyswarm.v1 import network_checks_pb2 as pb
from pyswarm_common.errors import Unsupported
from pyswarm_overlay.reports import Finding, Hop, Report, Source, Step

MAX_FINDINGS = 200
"""Of one answer: the places that were wrong; more are only counted by what was repaired."""

_OUTCOMES = {
    "ok": pb.TraceStep.OUTCOME_OK,
    "warning": pb.TraceStep.OUTCOME_WARNING,
    "stop": pb.TraceStep.OUTCOME_STOP,
}


class NetworkInspector(Protocol):
    """What is needed of the overlay."""

    async def check(self, *, repair: bool) -> Report: ...

    async def trace_source(self, sandbox_id: str, target: str, port: int, protocol: str, *, probe: bool) -> Source: ...

    async def trace_target(self, sandbox_id: str, hop: Hop, port: int, protocol: str) -> tuple[Step, ...]: ...


class NetworkChecks:
    """One per agent. One verification at a time: a second caller waits for the first."""

    def __init__(self, inspector: NetworkInspector | None) -> None:
        self._inspector = inspector
        self._lock = asyncio.Lock()

    async def verify(self, request: pb.VerifyNetworksRequest) -> pb.NodeNetworks:
        async with self._lock:
            return answer_of(await self._require().check(repair=not request.dry_run))

    async def source(self, request: pb.TraceSourceRequest) -> pb.TraceSourceResponse:
        found = await self._require().trace_source(
            request.sandbox_id, request.target, request.port, request.protocol or "tcp", probe=request.probe
        )
        response = pb.TraceSourceResponse(
            steps=[_step(step) for step in found.steps],
            hops=[_hop(hop) for hop in found.hops],
        )
        if found.probe is not None:
            response.probe.CopyFrom(_step(found.probe))
        return response

    async def target(self, request: pb.TraceTargetRequest) -> pb.TraceTargetResponse:
        hop = request.hop
        steps = await self._require().trace_target(
            request.sandbox_id,
            Hop(
                hop.network_id,
                hop.network_name,
                hop.source_address,
                hop.address,
                hop.node_address,
                hop.endpoint_id,
                hop.port,
            ),
            request.port,
            request.protocol or "tcp",
        )
        return pb.TraceTargetResponse(steps=[_step(step) for step in steps])

    def _require(self) -> NetworkInspector:
        if self._inspector is None:
            raise Unsupported("this node has no networks to look at")
        return self._inspector


def answer_of(report: Report) -> pb.NodeNetworks:
    return pb.NodeNetworks(
        checked=dict(report.checked),
        findings=[_finding(finding) for finding in report.findings[:MAX_FINDINGS]],
        tables=[pb.TableVersion(network_id=one.network_id, name=one.name, held=one.version) for one in report.tables],
        repairs=report.repairs,
    )


def _finding(finding: Finding) -> pb.NetworkFinding:
    kind, key = finding.place
    return pb.NetworkFinding(kind=kind, id=key, name=finding.name, problems=finding.problems, left=finding.left)


def _step(step: Step) -> pb.TraceStep:
    return pb.TraceStep(outcome=_OUTCOMES[step.outcome], step=step.step, text=step.text)


def _hop(hop: Hop) -> pb.TraceHop:
    return pb.TraceHop(
        network_id=hop.network_id,
        network_name=hop.network_name,
        source_address=hop.source_address,
        address=hop.address,
        node_address=hop.node_address,
        endpoint_id=hop.endpoint_id,
        port=hop.port,
    )
