"""Addresses of one task on all of its networks: all or none, since half-attached tasks would hold what others need.

A task has the static addresses of its slot where its service says some, and chosen ones otherwise. A static address can
have one holder only, so a task waits while its predecessor has it: whoever prepares a successor lets the predecessor
stop first (`waits_for_addresses_of`). One that is on a lost node gives it up at once: that node is told to end the task
when it comes back, and nobody sends it anything meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from pyswarm_common.model import (
    Network,
    NetworkAttachment,
    NetworkAttachmentSpec,
    NodeState,
    PublishMode,
    Task,
    TaskState,
)
from pyswarm_manager.planner.allocate.addresses import address_number
from pyswarm_manager.planner.allocate.allocator import why_unallocated
from pyswarm_manager.planner.allocate.taking import (
    Taken,
    families,
    give_back,
    has_room,
    no_address,
    take,
    take_family,
    texts,
)
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.store.network_claims import has_addresses, is_allocated
from pyswarm_manager.store.static_addresses import address_of_slot, count_of, text_of
from pyswarm_manager.store.tables import NODE_NETWORKS


def allocate_task(draft: Draft, candidate: Candidate) -> None:
    """Addresses on every network of the task; or its message says what is missing."""
    wanted = [attachment for attachment in candidate.spec.networks if attachment.target not in NODE_NETWORKS]
    if any(port.publish_mode is PublishMode.INGRESS for port in candidate.ports) and draft.ledger.ingress_id:
        wanted.append(NetworkAttachmentSpec(target=draft.ledger.ingress_id))
    attachments = []
    given: list[Taken] = []
    for attachment in wanted:
        taken = _addresses(draft, candidate, attachment)
        if isinstance(taken, str):
            candidate.message = taken
            give_back(given)
            return
        given += taken
        attachments.append(NetworkAttachment(attachment.target, texts(taken), attachment.aliases))
    candidate.networks = tuple(attachments)
    candidate.allocated = True


def _addresses(draft: Draft, candidate: Candidate, attachment: NetworkAttachmentSpec) -> list[Taken] | str:
    """What the task gets on one network, or why it gets nothing."""
    network = draft.network(attachment.target)
    if network is None:
        return f"network {attachment.target} not found"
    if not has_addresses(network.spec):
        return []  # its node gives it some
    if not is_allocated(network):
        return why_unallocated(draft, network)
    if attachment.addresses:
        return _static_addresses(draft, candidate, attachment, network)
    return take(draft, network) or no_address(network)


def _static_addresses(
    draft: Draft, candidate: Candidate, attachment: NetworkAttachmentSpec, network: Network
) -> list[Taken] | str:
    found: list[Taken] = []
    for version in families(draft, network):
        if count_of(attachment, version):
            taken = _static(draft, candidate, attachment, network, version)
        else:
            taken = take_family(draft, network, version) or no_address(network, version)
        if isinstance(taken, str):
            give_back(found)
            return taken
        found.append(taken)
    return found


def _static(
    draft: Draft, candidate: Candidate, attachment: NetworkAttachmentSpec, network: Network, version: int
) -> Taken | str:
    """The slot's address of one family."""
    slot = max(candidate.slot, 1)
    number = address_of_slot(attachment, version, slot)
    if number is None:
        count = count_of(attachment, version)
        return (
            f"no address for replica {slot} on network {network.spec.name}: the service has {count} "
            f"(--network name={network.spec.name},ip=…)"
        )
    book = draft.ledger.book(network.id)
    part = book.range_of(number)
    if part is None:
        return f"address {text_of(version, number)} is in no subnet of network {network.spec.name}"
    if book.is_held(number):
        return _who_has_it(draft, candidate, network, version, number)
    part.hold(number)
    return part, number


def _who_has_it(draft: Draft, candidate: Candidate, network: Network, version: int, number: int) -> str:
    text = text_of(version, number)
    for task in _slot_of(draft, candidate):
        if _holds(task, network.id, number):
            node = draft.tables.nodes.get(task.node_id)
            if (node is None or node.status.state is NodeState.DOWN) and task.desired_state > TaskState.RUNNING:
                draft.rewrite(without_network(task, network.id))
            return f"waits for address {text} of network {network.spec.name}, which its predecessor still has"
    return f"waits for address {text} of network {network.spec.name}, which is in use"


def _slot_of(draft: Draft, candidate: Candidate) -> tuple[Task, ...]:
    """Of a plain container there are no predecessors."""
    key = candidate.slot or candidate.node_id
    if not candidate.service.id:
        return ()
    return draft.tables.slots.get(candidate.service.id, {}).get(key, ())


def without_network(task: Task, network_id: str) -> Task:
    """The task without its addresses there."""
    networks = tuple(replace(item, addresses=()) if item.network_id == network_id else item for item in task.networks)
    return replace(task, networks=networks)


def _holds(task: Task, network_id: str, number: int) -> bool:
    return not task.status.state.is_terminal and number in _numbers(task, network_id)


def _numbers(task: Task, network_id: str) -> Iterator[int]:
    for attachment in task.networks:
        if attachment.network_id == network_id:
            yield from map(address_number, attachment.addresses)


def waits_for_addresses_of(draft: Draft, task: Task, others: Iterable[Task]) -> bool:
    """Whether the task gets its addresses as soon as the others have ended, and not before."""
    if task.status.state is not TaskState.NEW:
        return False
    held = {
        (item.network_id, address_number(text))
        for other in others
        for item in other.networks
        for text in item.addresses
    }
    waits = False
    for attachment in task.spec.networks:
        network = draft.network(attachment.target)
        if network is None or not has_addresses(network.spec):
            continue
        for version in families(draft, network):
            number = address_of_slot(attachment, version, max(task.slot, 1))
            if number is None:
                if count_of(attachment, version) or not has_room(draft, network, version):
                    return False
            elif (network.id, number) in held:
                waits = True
            elif draft.ledger.book(network.id).is_held(number):
                return False
    return waits


def has_its_addresses(task: Task, networks: Iterable[NetworkAttachmentSpec]) -> bool:
    """Whether the task holds the static addresses that its slot has by these attachments."""
    for attachment in networks:
        if not attachment.addresses:
            continue
        held = set(_numbers(task, attachment.target))
        for version in (4, 6):
            number = address_of_slot(attachment, version, max(task.slot, 1))
            if number is not None and number not in held and _has_family(task, attachment.target, version):
                return False
    return True


def _has_family(task: Task, network_id: str, version: int) -> bool:
    texts_of = (text for item in task.networks if item.network_id == network_id for text in item.addresses)
    return any((":" in text) == (version == 6) for text in texts_of)
