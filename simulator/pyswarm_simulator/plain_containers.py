"""Plain containers on a host: what is kept of them, and how their agent asks the managers for places on networks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pyswarm.v1 import attachments_pb2 as pb
from pyswarm_common.errors import PyswarmError, Unavailable
from pyswarm_simulator.switchboard import NoAnswer, Party, Switchboard
from pyswarm_simulator.world import World
from pyswarm_worker.attaching import AskPlace
from pyswarm_worker.core.plain import PlainRecord
from pyswarm_worker.plain_file import PlainFile

_WRITE_S = 0.005
_ANSWER_TIMEOUT_S = 12.0


class PlainContainersOnDisk:
    """A host's: it outlives the agent's process. A namespace ends with the host's power, and with it what is kept."""

    def __init__(self) -> None:
        self.records: dict[str, PlainRecord] = {}
        self.paths: dict[str, str] = {}

    def power_off(self) -> None:
        self.records, self.paths = {}, {}


class SimPlainFile(PlainFile):
    """What an agent's process reads and writes of it. A process that dies while it writes leaves what was there."""

    def __init__(self, world: World, kept: PlainContainersOnDisk, path: Path) -> None:
        super().__init__(path)
        self._world, self._kept = world, kept

    def load(self) -> tuple[dict[str, PlainRecord], dict[str, str]]:
        return dict(self._kept.records), dict(self._kept.paths)

    async def save(self, records: Iterable[PlainRecord], paths: Mapping[str, str]) -> None:
        async with self._saving:
            found = {record.container_id: record for record in records if record.container_id in paths}
            kept = {container_id: paths[container_id] for container_id in found}
            await asyncio.sleep(self._world.rng.uniform(0, _WRITE_S))
            self._kept.records, self._kept.paths = found, kept


def sim_asker(board: Switchboard, party: Party, managers: Callable[[], Sequence[str]]) -> AskPlace:
    """Asks one manager after the other; who does not lead says so, where a real one would pass the question on."""

    async def ask(request: pb.AttachRequest) -> pb.AttachResponse:
        last: PyswarmError = Unavailable("no manager is reachable")
        for address in dict.fromkeys(managers()):
            try:
                answer = await board.call(party, address, "Attach", request.SerializeToString(), _ANSWER_TIMEOUT_S)
            except (Unavailable, NoAnswer) as error:
                last = Unavailable(str(error))
            else:
                return pb.AttachResponse.FromString(answer)
        raise last

    return ask
