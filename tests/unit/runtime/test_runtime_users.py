import pytest

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.users import ProcessUser, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\nbroken\n1000:x:5:6::/odd:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:34:\nlog:x:35:web,other\nnobody:x:zz:\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", ProcessUser(0, 0, (0,), "/root")),
        ("web", ProcessUser(33, 34, (34, 35), "/srv")),
        ("33", ProcessUser(33, 34, (34, 35), "/srv")),
        ("web:log", ProcessUser(33, 35, (35,), "/srv")),
        ("web:99", ProcessUser(33, 99, (99,), "/srv")),
        ("4242", ProcessUser(4242, 0, (0,), "/")),
        ("4242:4343", ProcessUser(4242, 4343, (4343,), "/")),
        (":log", ProcessUser(0, 35, (35,), "/root")),
    ],
)
def test_resolved(spec: str, expected: ProcessUser) -> None:
    assert resolve_user(spec, PASSWD, GROUP) == expected


def test_root_without_any_files() -> None:
    assert resolve_user("", "", "") == ProcessUser(0, 0, (0,), "/root")


@pytest.mark.parametrize("spec", ["nobody", "web:none", "-1", "99999999999", "³"])
def test_unknown(spec: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to find"):
        resolve_user(spec, PASSWD, GROUP)
