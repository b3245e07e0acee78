"""What a service waits for, from flags. Pure."""

from __future__ import annotations

from pyswarm_cli.service.parts.pieces import Options
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import DependencyCondition, ServiceDependency

_PREFIX = "service_"  # docker compose's "service_healthy" is taken as well
_COMPOSE = {"completed_successfully": "completed"}


def dependency(text: str) -> ServiceDependency:
    """`db`, or `db:healthy`."""
    name, colon, condition = text.partition(":")
    word = condition.removeprefix(_PREFIX)
    word = _COMPOSE.get(word, word) or ("" if colon else "started")
    if not name or word.upper() not in DependencyCondition.__members__:
        raise InvalidArgument(f'invalid dependency "{text}": write SERVICE, or SERVICE:started|healthy|completed')
    return ServiceDependency(service=name, condition=DependencyCondition[word.upper()])


def create_dependencies(options: Options) -> tuple[ServiceDependency, ...]:
    """What create is given."""
    return change_dependencies((), options["depends_on"], ())


def change_dependencies(
    have: tuple[ServiceDependency, ...], add: tuple[ServiceDependency, ...], remove: tuple[str, ...]
) -> tuple[ServiceDependency, ...]:
    """Each service once, with the condition that was given last."""
    kept = {item.service: item for item in have if item.service not in remove}
    return tuple((kept | {item.service: item for item in add}).values())
