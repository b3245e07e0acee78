"""`--session-affinity`: what it makes of a spec, how it is shown, and where it is refused."""

from __future__ import annotations

import pytest

from pyswarm_cli.service.parts.networking import apply_to_endpoint
from pyswarm_cli.views.inspected import _endpoint_spec
from pyswarm_common.model import EndpointMode, EndpointSpec, SessionAffinity
from pyswarm_manager.api.validate.service import _check_endpoint

STICKY = EndpointSpec(session_affinity=SessionAffinity.CLIENT_IP)


def applied(have: EndpointSpec, flag: str | None) -> SessionAffinity:
    return apply_to_endpoint(have, {"endpoint_mode": None, "session_affinity": flag}).session_affinity


@pytest.mark.parametrize(
    ("have", "flag", "wanted"),
    [
        (EndpointSpec(), "client-ip", SessionAffinity.CLIENT_IP),
        (EndpointSpec(), None, SessionAffinity.NONE),
        (STICKY, None, SessionAffinity.CLIENT_IP),
        (STICKY, "none", SessionAffinity.NONE),
    ],
)
def test_the_flag_sets_it_and_leaving_it_out_keeps_it(
    have: EndpointSpec, flag: str | None, wanted: SessionAffinity
) -> None:
    assert applied(have, flag) is wanted


def test_it_is_shown_where_there_is_one() -> None:
    assert _endpoint_spec(STICKY) == {"Mode": "vip", "SessionAffinity": "client-ip"}
    assert _endpoint_spec(EndpointSpec()) == {"Mode": "vip"}


def test_without_a_virtual_address_it_is_refused() -> None:
    assert list(_check_endpoint(STICKY)) == []
    dnsrr = EndpointSpec(mode=EndpointMode.DNSRR, session_affinity=SessionAffinity.CLIENT_IP)
    assert [path for path, _problem in _check_endpoint(dnsrr)] == ["session_affinity"]
