"""Which plugins of Docker's kind this machine has for networks, so that managers hear of them.

Asked every few seconds, since nobody tells: a plugin comes up after us, or dies and leaves its socket. One that does
not answer is not there: no task is placed here for its sake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from pyswarm_common.model import NodeDescription, Plugin
from pyswarm_overlay.drivers.plugin_discovery import PluginPlaces, discover, names

_PERIOD_S = 10.0


class FoundPlugins:
    """What was found last."""

    def __init__(self, places: PluginPlaces) -> None:
        self._places = places
        self._found: tuple[Plugin, ...] = ()

    def described(self, description: NodeDescription) -> NodeDescription:
        return replace(description, plugins=(*description.plugins, *self._found))

    async def look(self) -> bool:
        """Whether there are others than before."""
        answers = await discover(self._places) if names(self._places) else ()
        before, self._found = self._found, tuple(Plugin(type=kind, name=name) for kind, name in answers)
        return self._found != before

    async def run(self, on_changed: Callable[[], None]) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            if await self.look():
                on_changed()
