import pytest

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.image_changes import apply_changes
from pyswarm_runtime.types import ImageConfig


def test_all_instructions() -> None:
    config = apply_changes(
        ImageConfig(env=("A=old", "B=kept")),
        [
            'CMD ["serve", "-p"]',
            "entrypoint /bin/run me",
            'ENV A=new C="two words"',
            "ENV D old form",
            "LABEL a=1 b=2",
            "WORKDIR /srv",
            "USER web:log",
            "STOPSIGNAL SIGQUIT",
            "EXPOSE 80 53/udp",
            'VOLUME ["/data"]',
            "VOLUME /x /y",
        ],
    )
    assert config == ImageConfig(
        cmd=("serve", "-p"),
        entrypoint=("/bin/sh", "-c", "/bin/run me"),
        env=("A=new", "B=kept", "C=two words", "D=old form"),
        labels={"a": "1", "b": "2"},
        working_dir="/srv",
        user="web:log",
        stop_signal="SIGQUIT",
        exposed_ports=("53/udp", "80/tcp"),
        volumes=("/data", "/x", "/y"),
    )


@pytest.mark.parametrize("change", ["", "CMD", "FROM busybox", "RUN rm -r /", 'ENV A="', "ENV A=1 B", "LABEL =x"])
def test_refused(change: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes(ImageConfig(), [change])
