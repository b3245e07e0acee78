"""The unlock key in the cluster object: when there is one, and who sees it."""

from __future__ import annotations

import pytest

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import Cluster, ClusterSpec
from pyswarm_manager.api.clusters import to_message, without_secrets
from pyswarm_manager.unlocking import key_for, shown

SECRET = bytes(range(32))


def test_autolock_makes_a_key_keeps_it_and_drops_it() -> None:
    made = key_for(ClusterSpec(autolock=True), b"")
    assert len(made) == 32
    assert key_for(ClusterSpec(autolock=True), made) == made
    assert key_for(ClusterSpec(), made) == b""
    assert key_for(ClusterSpec(), b"") == b""


def test_the_key_is_shown_as_a_token_or_refused() -> None:
    cluster = Cluster(id="c", unlock_key=SECRET)
    assert LockKey.parse(shown(cluster).unlock_key).secret == SECRET
    with pytest.raises(FailedPrecondition, match="no unlock key is set"):
        shown(Cluster(id="c"))


@pytest.mark.parametrize("for_admin", [True, False])
def test_no_view_of_the_cluster_holds_it(for_admin: bool) -> None:
    cluster = Cluster(id="c", spec=ClusterSpec(autolock=True), unlock_key=SECRET)
    message = to_message(cluster, for_admin=for_admin)
    assert message.spec.autolock
    assert SECRET not in message.SerializeToString()
    assert LockKey(SECRET).token() not in str(message)
    assert without_secrets(cluster).unlock_key == b""
