"""Affinity: near to the tasks of other services, or away from them, per node or per value of a node label.

Required rules filter, weighted ones are a wish: a place counts once for each rule, however many tasks are there. A
service that must not be near another keeps that one's new tasks away too, or the order of their creation would decide.
A service that must be near itself begins anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm_common.model import Affinity, Service
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.schedule.constraints import node_value
from pyswarm_manager.planner.seat import Seat
from pyswarm_manager.store.tables import Kind, Tables


class _Rule:
    __slots__ = ("is_own", "owner", "places", "wish")

    def __init__(
        self, owner: Service, wish: Affinity, is_own: bool, counts: Mapping[str, int], seats: Mapping[str, Seat]
    ) -> None:
        self.owner = owner
        """The service that says so."""
        self.wish = wish
        self.is_own = is_own
        self.places: dict[str, int] = {}
        """Tasks of the other service by place."""
        for node_id, count in counts.items():
            seat = seats.get(node_id)
            place = place_of(seat, wish.topology) if seat is not None else None
            if place is not None:
                self.places[place] = self.places.get(place, 0) + count

    def is_near(self, seat: Seat) -> bool:
        place = place_of(seat, self.wish.topology)
        return place is not None and place in self.places

    def allows(self, seat: Seat) -> bool:
        if self.wish.weight:
            return True
        if self.wish.anti:
            return not self.is_near(seat)
        return self.is_near(seat) or (self.is_own and not self.places)


class Affinities:
    """The rules of one group of tasks, with where the others are."""

    def __init__(self, rules: list[_Rule]) -> None:
        self._rules = rules

    @classmethod
    def of(cls, tables: Tables, ledger: Ledger, service: Service) -> Affinities | None:
        """None, if no rule concerns the service: nearly always."""
        wishes = service.spec.task.placement.affinities
        avoiders = ledger.avoiders.get(service.spec.name, {})
        if not wishes and not avoiders:
            return None
        rules = []
        for wish in wishes:
            other = tables.ids_by_name.get((Kind.SERVICE, wish.service), "")
            rules.append(
                _Rule(service, wish, other == service.id, ledger.nodes_of(other) if other else {}, ledger.seats)
            )
        for other_id in avoiders:
            other_service = tables.services.get(other_id)
            if other_service is None or other_id == service.id:
                continue
            for wish in other_service.spec.task.placement.affinities:
                if wish.anti and not wish.weight and wish.service == service.spec.name:
                    rules.append(_Rule(other_service, wish, False, ledger.nodes_of(other_id), ledger.seats))
        return cls(rules)

    def allows(self, seat: Seat) -> bool:
        return all(rule.allows(seat) for rule in self._rules)

    def refused(self, seat: Seat) -> list[tuple[Service, Affinity]]:
        """The required rules that keep the tasks from this node, and whose they are."""
        return [(rule.owner, rule.wish) for rule in self._rules if not rule.allows(seat)]

    def wish(self, seat: Seat) -> int:
        """How much the node is wished for: the weights of what is near, less those of what should not be."""
        total = 0
        for rule in self._rules:
            if rule.wish.weight and rule.is_near(seat):
                total += -rule.wish.weight if rule.wish.anti else rule.wish.weight
        return total

    def placed(self, seat: Seat) -> bool:
        """Count a task of the group on the node; returns whether other nodes became more welcome by that."""
        widened = False
        for rule in self._rules:
            if not rule.is_own:
                continue
            place = place_of(seat, rule.wish.topology)
            if place is None:
                continue
            is_new = place not in rule.places
            rule.places[place] = rule.places.get(place, 0) + 1
            widened = widened or (is_new and not rule.wish.anti and bool(rule.wish.topology))
        return widened


def place_of(seat: Seat, topology: str) -> str | None:
    """Which place the node is in; None without the label."""
    return node_value(seat.node, topology) if topology else seat.node.id


def affinities_of(draft: Draft, service: Service) -> Affinities | None:
    return Affinities.of(draft.tables, draft.ledger, service)
