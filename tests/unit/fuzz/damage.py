"""Bytes that are almost right: what a disk or a hostile peer makes of a valid document."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid document after a few flips, cuts, repetitions and insertions; or bytes of no document at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "repeat", "insert", "replace"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 20))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 20))]
            case "insert":
                data[at:at] = draw(st.sampled_from(INSERTIONS))
            case _:
                data[at : at + 1] = draw(st.binary(max_size=3))
    return bytes(data)


INSERTIONS = [b"\xff\xfe", b"[" * 5_000, b"{" * 5_000, b'"', b"-1", b"1e999", b"9" * 400, b"null", b"\0", b"\x80" * 11]
