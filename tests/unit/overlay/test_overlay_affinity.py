"""Session affinity: stable, order-free, and no source moves that need not."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core.affinity import BUCKETS, chosen, owners

backends = st.sets(st.integers(0, 200), min_size=1, max_size=20).map(lambda found: [f"10.0.1.{n}" for n in found])
SOURCES = [f"10.7.{number // 250}.{number % 250}" for number in range(500)]


def test_without_backends_nobody_is_chosen() -> None:
    assert chosen("c1", []) is None
    assert owners([]) == ()


@given(backends, st.randoms())
def test_the_choice_does_not_depend_on_the_order(found: list[str], rng: object) -> None:
    shuffled = [*found]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert chosen("c1", found) == chosen("c1", shuffled)
    assert owners(found) == owners(shuffled + shuffled[:1])


@given(backends, st.data())
def test_when_a_backend_goes_only_its_own_sources_move(found: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(found))
    rest = [backend for backend in found if backend != gone]
    for source in SOURCES[:50]:
        before = chosen(source, found)
        assert chosen(source, rest) == before or before == gone
    if rest:
        changed = {before for before, after in zip(owners(found), owners(rest), strict=True) if before != after}
        assert changed <= {gone}


def test_sources_and_buckets_are_spread_evenly() -> None:
    ten = [f"10.0.1.{number}" for number in range(10)]
    per_source = Counter(chosen(source, ten) for source in SOURCES)
    per_bucket = Counter(owners(ten))
    assert set(per_source) == set(per_bucket) == set(ten)
    assert max(per_source.values()) < 2 * len(SOURCES) / len(ten)
    assert max(per_bucket.values()) < 1.5 * BUCKETS / len(ten)


def test_every_bucket_has_an_owner() -> None:
    assert len(owners(["a", "b", "c"])) == BUCKETS
    assert owners(["a"], buckets=4) == ("a", "a", "a", "a")
