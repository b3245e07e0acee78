"""A name for a service that was given none, as docker finds one: "brave_lovelace". Pure but for the given choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_MOODS = (
    *("agile", "amber", "brave", "bright", "calm", "clever", "cosy", "crisp", "daring", "eager", "fair", "fond"),
    *("gentle", "glad", "golden", "happy", "hardy", "honest", "jolly", "keen", "kind", "lively", "lucid", "merry"),
    *("mild", "nimble", "noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "sharp", "silent", "sunny"),
    *("swift", "tidy", "upbeat", "vivid", "warm", "wise", "witty", "zesty"),
)
_PEOPLE = (
    *("babbage", "bartik", "boole", "cerf", "curie", "dijkstra", "engelbart", "euler", "franklin", "galois", "gauss"),
    *("germain", "goedel", "goldberg", "hamilton", "hamming", "hertz", "hilbert", "hopper", "johnson", "kahn", "karp"),
    *(
        "kepler",
        "knuth",
        "lamarr",
        "lamport",
        "liskov",
        "lovelace",
        "mccarthy",
        "meitner",
        "noether",
        "pascal",
        "perlman",
    ),
    *("ritchie", "shannon", "sutherland", "thompson", "torvalds", "turing", "wirth", "wozniak", "zuse"),
)


def random_name(choose: Callable[[Sequence[str]], str]) -> str:
    """Two words; `choose` picks one of a sequence."""
    return f"{choose(_MOODS)}_{choose(_PEOPLE)}"
