"""Applying membership changes to a configuration.

A change takes effect on each member as soon as it is in that member's log, and no longer if it is overwritten. It must
never fail: a change that no longer makes sense (removing who is gone) leaves the configuration as it is.
"""

from __future__ import annotations

import msgspec

from pyswarm_manager.raft.core.types import ConfChange, Configuration, ConfOperation, Member, MemberRole

MAX_REMOVED = 1024
"""How many removed ids are remembered. Ids are random: forgetting the oldest only forgets whom to turn away early."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ConfChange)


def encode_change(change: ConfChange) -> bytes:
    """The data of a CONFIG entry."""
    return _encoder.encode(change)


def decode_change(data: bytes) -> ConfChange:
    """The change in a CONFIG entry."""
    return _decoder.decode(data)


def apply_change(configuration: Configuration, change: ConfChange) -> Configuration:
    """The configuration after the change. A removed id never comes back."""
    members = dict(configuration.members)
    removed = configuration.removed
    present = members.get(change.raft_id)
    match change.operation:
        case ConfOperation.REMOVE:
            if members.pop(change.raft_id, None) is not None:
                removed = (*removed, change.raft_id)[-MAX_REMOVED:]
        case ConfOperation.UPDATE_ADDRESS:
            if present is not None:
                members[change.raft_id] = Member(change.address, present.role)
        case ConfOperation.ADD_VOTER:
            if change.raft_id not in removed:
                members[change.raft_id] = Member(change.address, MemberRole.VOTER)
        case ConfOperation.ADD_LEARNER:
            # A voter is never demoted by a repeated join request.
            if change.raft_id not in removed:
                role = MemberRole.LEARNER if present is None else present.role
                members[change.raft_id] = Member(change.address, role)
    return Configuration(members, removed)
