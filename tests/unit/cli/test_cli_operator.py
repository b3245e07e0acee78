"""`pyswarm operator …` and `swarm inspect` against a daemon with prepared answers: what they show, how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Done, Run, run_cli

from pyswarm.v1 import control_pb2, control_pb2_grpc, operator_pb2_grpc, types_pb2
from pyswarm.v1 import operator_pb2 as pb
from pyswarm_cli.views.operator import agreed_digest


class Prepared(operator_pb2_grpc.OperatorServicer, control_pb2_grpc.ControlServicer):
    """Answers what the test put in; remembers what it was asked."""

    def __init__(self, address: str) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[Any] = []
        self.server = grpc.server(ThreadPoolExecutor(2))
        operator_pb2_grpc.add_OperatorServicer_to_server(self, self.server)
        control_pb2_grpc.add_ControlServicer_to_server(self, self.server)
        self.server.add_insecure_port(address)
        self.server.start()

    def _answer(self, name: str, request: Any, context: Any) -> Any:
        self.requests.append(request)
        answer = self.answers[name]
        if isinstance(answer, str):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, answer)
        return answer

    def ListPeers(self, request: Any, context: Any) -> Any:
        return self._answer("peers", request, context)

    def GetRaftState(self, request: Any, context: Any) -> Any:
        return self._answer("state", request, context)

    def TransferLeadership(self, request: Any, context: Any) -> Any:
        return self._answer("transfer", request, context)

    def InspectStore(self, request: Any, context: Any) -> Any:
        return self._answer("store", request, context)

    def CheckReplicas(self, request: Any, context: Any) -> Any:
        return self._answer("check", request, context)

    def GetCluster(self, request: Any, context: Any) -> Any:
        return self._answer("cluster", request, context)

    def UpdateCluster(self, request: Any, context: Any) -> Any:
        return self._answer("update", request, context)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Prepared]:
    made = Prepared(f"unix:{tmp_path}/d.sock")
    yield made
    made.server.stop(None).wait()


@pytest.fixture
def run(daemon: Prepared, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def invoke(*argv: str) -> Done:
        return run_cli(capfd, "-H", f"unix://{tmp_path}/d.sock", *argv)

    return invoke


PEERS = [
    pb.RaftPeer(node_id="id1", hostname="n1", raft_id=0xA1, address="10.0.0.1:2377", role=pb.PEER_ROLE_LEADER,
                reachable=True, match_index=90),
    pb.RaftPeer(node_id="id2", hostname="n2", raft_id=0xA2, address="10.0.0.2:2377", role=pb.PEER_ROLE_VOTER,
                match_index=80, lag=10, last_contact_s=4.26, leaving=True, zone="b"),
    pb.RaftPeer(raft_id=0xA3, address="10.0.0.3:2377", role=pb.PEER_ROLE_LEARNER, reachable=True),
]  # fmt: skip


def test_peers_as_a_table_and_as_json(daemon: Prepared, run: Run) -> None:
    daemon.answers["peers"] = pb.ListPeersResponse(peers=PEERS, term=3, last_index=90)
    code, out, _ = run("operator", "raft", "list-peers")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["ID", "HOSTNAME", "RAFT", "ID", "ADDRESS", "ROLE", "REACHABLE", "MATCH", "INDEX", "LAG"]
    assert lines[1] == ["-", "-", "a3", "10.0.0.3:2377", "learner", "yes", "-", "-"]
    assert lines[2] == ["id1", "n1", "a1", "10.0.0.1:2377", "leader", "yes", "90", "0"]
    assert lines[3] == ["id2", "n2", "a2", "10.0.0.2:2377", "voter", "(leaving)", "no", "80", "10"]
    rows = [json.loads(line) for line in run("operator", "raft", "list-peers", "--format", "json")[1].splitlines()]
    assert (rows[2]["Zone"], rows[2]["LastContact"]) == ("b", "4.3s ago")
    assert (
        run("operator", "raft", "list-peers", "--format", "{{.Hostname}} {{.Role}}")[1].splitlines()[1] == "n1 leader"
    )


@pytest.mark.parametrize(("role", "shows_contact"), [("leader", True), ("follower", False)])
def test_the_state_shows_of_the_others_what_this_member_knows(
    daemon: Prepared, run: Run, role: str, shows_contact: bool
) -> None:
    daemon.answers["state"] = pb.GetRaftStateResponse(
        node_id="id1", raft_id=0xA1, role=role, term=3, leader_raft_id=0xA1, disk="ok", members=PEERS
    )
    code, out, _ = run("operator", "raft", "state")
    assert code == 0
    assert "Leader: n1 (a1) at" in out
    assert "Disk: ok" in out
    assert ("LastContact" in out) is shows_contact
    assert run("operator", "raft", "state", "--format", "{{.Term}} {{.Vote}}")[1] == "3 none\n"


def test_leadership_is_handed_over(daemon: Prepared, run: Run) -> None:
    daemon.answers["transfer"] = pb.TransferLeadershipResponse(node_id="id2", hostname="n2")
    assert run("operator", "raft", "transfer-leadership", "n2") == (0, "n2 leads now.\n", "")
    assert daemon.requests[-1].node == "n2"
    daemon.answers["transfer"] = pb.TransferLeadershipResponse(node_id="id2", hostname="n2", unchanged=True)
    assert run("operator", "raft", "transfer-leadership")[1] == "n2 leads already.\n"
    assert run("operator", "raft", "transfer-leadership", "")[0] == 1
    daemon.answers["transfer"] = "node n2 is not reachable, so it cannot lead: start it first"
    code, _, err = run("operator", "raft", "transfer-leadership", "n2")
    assert (code, err.startswith("Error response from daemon: node n2 is not reachable")) == (1, True)


def test_the_store_by_kind_and_object_by_object(daemon: Prepared, run: Run) -> None:
    large = pb.StoredObject(kind="service", id="s1", name="we\x1b[1mb", bytes=2500, version=7)
    kind = pb.StoredKind(kind="service", objects=3, bytes=4000, largest=[large])
    daemon.answers["store"] = pb.InspectStoreResponse(index=9, digest="d1", kinds=[kind], objects=[large])
    code, out, _ = run("operator", "store", "inspect")
    assert code == 0
    assert out.startswith("Index: 9\nDigest: d1\n\nKIND")
    assert out.splitlines()[-1].split() == ["service", "3", "4kB", "we", "[1mb", "2.5kB"]
    _, out, _ = run("operator", "store", "inspect", "--objects", "service", "--limit", "5")
    assert out.splitlines()[1].split() == ["s1", "we", "[1mb", "2.5kB", "7", "-"]
    assert (daemon.requests[-1].kind, daemon.requests[-1].limit) == ("service", 5)


def replica(name: str, digest: str, error: str = "") -> pb.Replica:
    return pb.Replica(node_id=f"id-{name}", hostname=name, address="a:1", digest=digest, error=error)


@pytest.mark.parametrize(
    ("replicas", "code", "said"),
    [
        ([replica("n1", "d1"), replica("n2", "d1")], 0, "2 of 2 managers hold the same at index 9."),
        ([replica("n1", "d1"), replica("n2", "", "unreachable")], 0, "Not compared: n2."),
        ([replica("n1", "d1"), replica("n2", "d2"), replica("n3", "d1")], 1, "At index 9 n2 held something else"),
        ([replica("n1", "d1"), replica("n2", "d2"), replica("n3", "", "gone")], 1, "Not compared: n3."),
    ],
)
def test_replicas_that_differ_fail_and_are_named(
    daemon: Prepared, run: Run, replicas: list[pb.Replica], code: int, said: str
) -> None:
    daemon.answers["check"] = pb.CheckReplicasResponse(index=9, replicas=replicas)
    ended, out, err = run("operator", "check")
    assert (ended, said in err) == (code, True), err
    assert out.count("DIFFERS") == code
    assert out.count("unknown: ") == sum(not item.digest for item in replicas)


def test_most_replicas_are_right() -> None:
    assert agreed_digest([replica("a", "d2"), replica("b", "d1"), replica("c", "d2")]) == "d2"
    assert agreed_digest([replica("a", "d2"), replica("b", "d1")]) == "d1"
    assert agreed_digest([replica("a", "")]) == ""


def test_the_swarm_with_its_managers(daemon: Prepared, run: Run) -> None:
    daemon.answers["peers"] = pb.ListPeersResponse(peers=PEERS)
    spec = types_pb2.ClusterSpec(name="default", managers=3)
    daemon.answers["cluster"] = control_pb2.GetClusterResponse(cluster=types_pb2.Cluster(id="c1", spec=spec))
    found = json.loads(run("swarm", "inspect")[1])[0]
    assert found["Spec"]["Managers"] == {"Wanted": 3, "DeadGrace": 30_000_000_000}
    assert found["Managers"] == {"Voters": 2, "Reachable": 1, "Quorum": 2, "Joining": 1, "Leader": "n1"}


@pytest.mark.parametrize(("managers", "warns"), [("0", False), ("3", False), ("4", True)])
def test_an_even_number_of_managers_is_warned_of(daemon: Prepared, run: Run, managers: str, warns: bool) -> None:
    daemon.answers["cluster"] = control_pb2.GetClusterResponse()
    daemon.answers["update"] = control_pb2.UpdateClusterResponse()
    code, out, err = run("update", "--managers", managers, "--manager-grace", "1m")
    assert (code, out) == (0, "Swarm updated.\n")
    assert ("bear the loss of no more than 3 do" in err) is warns
    assert (daemon.requests[-1].spec.managers, daemon.requests[-1].spec.dead_manager_grace_s) == (int(managers), 60.0)
