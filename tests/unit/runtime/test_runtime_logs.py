import asyncio
from pathlib import Path

import pytest

from pyswarm_runtime.conmon import MonitorPaths, monitor_arguments
from pyswarm_runtime.logs import LogFollower, LogParser, log_files, read_logs, rotate, tail_start
from pyswarm_runtime.types import LogRecord


def line(text: str, kind: str = "F", stream: str = "stdout", second: int = 1) -> bytes:
    return f"2026-11-21T11:08:{second:02d}.500000000+00:00 {stream} {kind} {text}\n".encode()


def parse(*chunks: bytes) -> list[LogRecord]:
    parser = LogParser()
    records = [record for chunk in chunks for record in parser.feed(chunk)]
    return records + list(parser.finish())


def test_lines_and_times() -> None:
    first, second = parse(line("one"), line("two", second=2, stream="stderr"))
    assert (first.data, first.stream, second.data, second.stream) == (b"one\n", "stdout", b"two\n", "stderr")
    assert second.timestamp - first.timestamp == pytest.approx(1.0)
    assert first.timestamp == pytest.approx(1795259281.5)


def test_parts_are_joined_per_stream() -> None:
    records = parse(line("a", "P"), line("x", stream="stderr"), line("b", "P"), line("c"), line("end", "P"))
    assert [record.data for record in records] == [b"x\n", b"abc\n", b"end"]


def test_any_chunking_gives_the_same() -> None:
    data = line("one") + line("a", "P") + line("b", second=2) + line("last", "P")
    whole = parse(data)
    assert all(parse(data[:cut], data[cut:]) == whole for cut in range(len(data)))


def test_damage_is_passed_over() -> None:
    assert [record.data for record in parse(b"nonsense\n", b"a b c\n", line("good"), b"\0\0\n")] == [b"good\n"]
    assert [record.timestamp for record in parse(b"never stdout F x\n")] == [0.0]


@pytest.mark.parametrize("zone", ["+00:00", "Z", "+02:00", "-05:30"])
def test_time_zones(zone: str) -> None:
    (record,) = parse(f"2026-11-21T11:08:01.25{zone} stdout F x\n".encode())
    hours = {"+02:00": -2.0, "-05:30": 5.5}.get(zone, 0.0)
    assert record.timestamp == pytest.approx(1795259281.25 + hours * 3600)


def texts(path: Path, tail: int | None) -> list[bytes]:
    async def collect() -> list[bytes]:
        async def run(function):  # type: ignore[no-untyped-def]
            return function()

        return [record.data async for record in read_logs(path, run, tail=tail, since=None, wait_more=None)]

    return asyncio.run(collect())


@pytest.mark.parametrize("ending", [b"", line("unfinished", "P")])
@pytest.mark.parametrize("tail", [0, 1, 2, 3, 5, 8, 9, 100])
def test_tail_over_rotated_files(tmp_path: Path, tail: int, ending: bytes) -> None:
    log = tmp_path / "log"
    (tmp_path / "log.2").write_bytes(line("1") + line("2"))
    (tmp_path / "log.1").write_bytes(line("3") + line("4a", "P") + line("4b") + line("5"))
    log.write_bytes(line("6") + line("7") + line("x" * 50_000) + ending)
    everything = texts(log, None)
    assert len(everything) == 8 + bool(ending)
    assert texts(log, tail) == everything[max(0, len(everything) - tail) :]


def test_tail_of_nothing(tmp_path: Path) -> None:
    assert texts(tmp_path / "log", 3) == []
    (tmp_path / "log").write_bytes(b"")
    assert texts(tmp_path / "log", 3) == []


def test_follower_reads_the_old_file_to_its_end_and_then_the_new(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one ")
    follower = LogFollower(*tail_start(log_files(log), 100))
    assert follower.read() == b"one "
    with log.open("ab") as writer:
        rotate(log, 2)
        writer.write(b"two ")
    assert follower.read() == b"two "
    assert follower.read() == b""
    log.write_bytes(b"three")
    assert follower.read() == b"three"
    assert follower.read() == b""
    follower.close()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_rotation_keeps_so_many(tmp_path: Path, keep: int) -> None:
    log = tmp_path / "log"
    for number in range(6):
        log.write_text(str(number))
        rotate(log, keep)
    kept = [path.read_text() for path in log_files(log) if path.exists()]
    assert kept == [str(number) for number in range(6)][-max(1, keep - 1) :]


def test_monitor_arguments() -> None:
    paths = MonitorPaths("/bin/conmon", "/bin/crun", Path("/r/oci"), Path("/r/exits"), Path("/r/c/x"), Path("/l/log"))
    arguments = monitor_arguments("x" * 64, "web", paths, tty=False, log_max_size=100)
    joined = " ".join(arguments)
    assert joined.startswith("/bin/conmon --api-version 1 -c xxx")
    for part in ("-n web", "-r /bin/crun", "-b /r/c/x", "--exit-dir /r/exits", "k8s-file:/l/log", "--log-size-max 400"):
        assert part in joined
    assert "--runtime-arg --root --runtime-arg /r/oci" in joined
    assert "--cgroup-manager=cgroupfs" in joined
    assert arguments[-1] != "-t"
    runc = MonitorPaths("/bin/conmon", "/bin/runc", Path("/r"), Path("/e"), Path("/b"), Path("/l"))
    unlimited = monitor_arguments("x", "", runc, tty=True, log_max_size=0)
    assert unlimited[-1] == "-t"
    assert "--cgroup-manager=cgroupfs" not in unlimited
    assert "--log-size-max" not in unlimited
