"""The history of a service's specs: one ServiceRevision for each spec it had, the newest for the one it has.

Apply writes them, in the same change set as the service itself, so that no writer of a service can forget to, and every
member has the same. A function of its arguments. Bounded by the cluster's `revision_limit`; numbers are never used
again and have no gaps, so that a service's revisions are found from its present number backwards, without an index.

Who reads it: the API (`service history`, `service rollback --to`), which never shows credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pyswarm_common.model import Cluster, Service, ServiceRevision
from pyswarm_common.model.audit import AuditRecord

DEFAULT_LIMIT: Final = 10
PLANNER: Final = "planner"

Find = Callable[[str], ServiceRevision | None]
"""A revision by its id."""


def revision_id(service_id: str, number: int) -> str:
    """Derived, since apply can draw no ids."""
    return f"{service_id}.{number}"


def revisions_of(service: Service, find: Find, skip: int = 0) -> Iterator[ServiceRevision]:
    """Those that are kept, newest first, but for the first few of them."""
    number = service.revision - skip
    while (revision := find(revision_id(service.id, number))) is not None:
        yield revision
        number -= 1


def present_revision(service: Service, author: str) -> ServiceRevision:
    """The service's present spec as history."""
    return ServiceRevision(
        id=revision_id(service.id, service.revision),
        service_id=service.id,
        number=service.revision,
        spec=service.spec,
        author=author,
    )


def author_of(asked: AuditRecord | None) -> str:
    """As the audit log calls who asked for the change; what nobody asked for the planner decided."""
    return PLANNER if asked is None else asked.actor or asked.actor_kind


def limit_of(cluster: Cluster | None) -> int:
    """How many specs of each service are kept, the present one among them."""
    return (cluster.spec.revision_limit if cluster is not None else 0) or DEFAULT_LIMIT
