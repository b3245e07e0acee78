"""Getting at what is in a container: commands to speak with, terminals, and files in and out, in the real kernel."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from pyswarm_common.errors import FailedPrecondition, InvalidArgument, NotFound
from pyswarm_runtime import ContainerConfig, ExecOptions, Mount, Runtime
from pyswarm_runtime.exec_sessions import ExecSession, NotStarted

IDLE = ("sh", "-c", "sleep 1000")


async def idle(runtime: Runtime, **settings: object) -> str:
    config = ContainerConfig(image="busybox", command=IDLE, host_network=True, **settings)  # type: ignore[arg-type]
    container_id = await runtime.create(config)
    await runtime.start(container_id)
    return container_id


async def said(session: ExecSession) -> tuple[bytes, bytes]:
    """All of standard output and of standard error."""
    parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    async with aclosing(session.output()) as output:
        async for stream, data in output:
            parts[stream].append(data)
    return b"".join(parts["stdout"]), b"".join(parts["stderr"])


async def until(output: AsyncIterator[tuple[str, bytes]], word: bytes) -> bytes:
    """What is said up to the word."""
    seen = b""
    async for _, data in output:
        seen += data
        if word in seen:
            return seen
    raise AssertionError(f"{word!r} never came: {seen!r}")


def archive_of(**files: bytes) -> bytes:
    """A tar of a directory `d` with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        top = tarfile.TarInfo("d")
        top.type, top.mode = tarfile.DIRTYPE, 0o750
        archive.addfile(top)
        for name, data in files.items():
            member = tarfile.TarInfo(f"d/{name}")
            member.size, member.mode, member.uid, member.mtime = len(data), 0o640, 33, 1_000_000_000
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def commands_saying(container_id: str, text: str) -> list[str]:
    """Processes of the container's control group with this in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and container_id in (entry / "cgroup").read_text():
                arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found += [arguments] if text in arguments else []
    return found


async def once(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def read(runtime: Runtime, container_id: str, path: str) -> tarfile.TarFile:
    data = b"".join([chunk async for chunk in runtime.access.read_archive(container_id, path)])
    return tarfile.open(fileobj=io.BytesIO(data))


async def test_streams_and_exit_code_are_kept_apart(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    argv = ("sh", "-c", "echo out; echo err >&2; exit 7")
    async with runtime.access.exec(container_id, argv, ExecOptions()) as session:
        assert await said(session) == (b"out\n", b"err\n")
        assert await session.wait() == 7


async def test_input_goes_in_and_its_end_is_seen(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    async with runtime.access.exec(container_id, ("cat",), ExecOptions(stdin=True)) as session:
        payload = bytes(range(256)) * 4096

        async def feed() -> None:
            for start in range(0, len(payload), 50_000):
                await session.write(payload[start : start + 50_000])
            await session.close_input()

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            output, _ = await said(session)
        assert output == payload
        assert await session.wait() == 0


async def test_a_terminal_with_a_size(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    async with runtime.access.exec(container_id, ("sh",), ExecOptions(tty=True, stdin=True)) as session:
        session.resize(33, 111)
        await session.write(b"test -t 0 && echo is-a-$TERM-tty; stty size; exit 5\n")
        async with aclosing(session.output()) as output:
            seen = b"".join([data async for _, data in output])
        assert b"is-a-xterm-tty" in seen
        assert b"33 111" in seen or b"stty: not found" in seen
        assert await session.wait() == 5


async def test_who_it_runs_as_and_where(runtime: Runtime) -> None:
    container_id = await idle(runtime, env=("KEPT=1", "GONE=1"))
    options = ExecOptions(user="web", working_dir="/tmp", env=("MORE=a=b", "GONE"))
    argv = ("sh", "-c", "id -u; id -g; pwd; echo $KEPT $MORE [$GONE]")
    async with runtime.access.exec(container_id, argv, options) as session:
        assert (await said(session))[0] == b"33\n34\n/tmp\n1 a=b []\n"


async def test_privileged_has_every_capability(runtime: Runtime) -> None:
    container_id = await idle(runtime, cap_drop=("ALL",))
    for privileged, expected in ((False, 0), (True, 1)):
        argv = ("grep", "CapEff", "/proc/self/status")
        async with runtime.access.exec(container_id, argv, ExecOptions(privileged=privileged)) as session:
            output, _ = await said(session)
        assert bool(int(output.split()[1], 16)) == bool(expected)


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "tty"])
async def test_leaving_ends_the_command(runtime: Runtime, tty: bool) -> None:
    container_id = await idle(runtime)
    argv = ("sh", "-c", "echo ready; sleep 4711")
    async with (
        runtime.access.exec(container_id, argv, ExecOptions(tty=tty)) as session,
        aclosing(session.output()) as output,
    ):
        await until(output, b"ready")
        assert commands_saying(container_id, "sleep 4711")
    async with asyncio.timeout(30):  # a killed process is gone a moment after the signal
        while commands_saying(container_id, "sleep 4711"):  # noqa: ASYNC110 - nobody tells us of it
            await asyncio.sleep(0.01)


async def test_a_command_that_is_not_there(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    for tty in (False, True):
        for program, code in (("no-such-program", 127), ("/etc/passwd", 126)):
            with pytest.raises(NotStarted, match="OCI runtime exec failed") as refused:
                async with runtime.access.exec(container_id, (program,), ExecOptions(tty=tty)):
                    pass
            assert refused.value.exit_code == code
            assert "\x1b" not in str(refused.value)
    with pytest.raises(NotStarted, match="no-such-program"):
        await runtime.access.exec_detached(container_id, ("no-such-program",), ExecOptions())


async def test_a_command_is_left_running(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    await runtime.access.exec_detached(container_id, ("sh", "-c", "echo here > /data/mark; sleep 4712"), ExecOptions())
    assert commands_saying(container_id, "4712")


async def test_only_running_containers_take_commands(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    await runtime.stop(container_id, grace_s=0.1)
    with pytest.raises(FailedPrecondition, match="not running"):
        async with runtime.access.exec(container_id, ("true",), ExecOptions()):
            pass


@pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
async def test_files_go_in_and_come_out(runtime: Runtime, running: bool) -> None:
    container_id = await idle(runtime)
    if not running:
        await runtime.stop(container_id, grace_s=0.1)
    await runtime.access.write_archive(container_id, "/data", once(archive_of(a=b"1" * 5000, b=b"2")))
    with await read(runtime, container_id, "/data/d") as archive:
        names = {member.name: member for member in archive}
        assert set(names) == {"d", "d/a", "d/b"}
        assert (names["d/a"].mode, names["d/a"].uid, names["d/a"].mtime) == (0o640, 33, 1_000_000_000)
        content = archive.extractfile("d/a")
        assert content is not None
        assert content.read() == b"1" * 5000


async def test_a_new_name_for_what_is_copied(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    await runtime.access.write_archive(container_id, "/data/renamed", once(archive_of(a=b"x")))
    with await read(runtime, container_id, "/data/renamed/.") as archive:
        assert {member.name for member in archive} == {".", "./a"}


async def test_volumes_are_seen_while_it_runs(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    container_id = await idle(runtime, mounts=(Mount(type="bind", source=str(tmp_path / "host"), target="/mnt"),))
    await runtime.access.write_archive(container_id, "/mnt/", once(archive_of(a=b"x")))
    assert (tmp_path / "host/d/a").read_bytes() == b"x"


async def test_links_of_a_hostile_container_stay_in_it(runtime: Runtime, tmp_path: Path) -> None:
    """A link to a path of the host means that path in the container."""
    outside = tmp_path / "outside"
    outside.mkdir()
    container_id = await idle(runtime)
    script = f"ln -s {outside} /data/out; ln -s / /data/root; ln -s ../../../../../../etc /data/up"
    async with runtime.access.exec(container_id, ("/bin/busybox", "sh", "-c", script.replace("ln", "/bin/busybox ln")),
                                   ExecOptions()) as session:  # fmt: skip
        assert await session.wait() == 0
    with pytest.raises(NotFound):
        await runtime.access.write_archive(container_id, "/data/out/x", once(archive_of(a=b"x")))
    assert list(outside.iterdir()) == []
    with await read(runtime, container_id, "/data/up/passwd") as archive:
        content = archive.extractfile("passwd")
        assert content is not None
        assert b"web:x:33:34" in content.read()


@pytest.mark.parametrize("name", ["../evil", "d/../../evil"])
async def test_archives_that_lead_outside_are_refused(runtime: Runtime, name: str) -> None:
    container_id = await idle(runtime)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(InvalidArgument, match="leads outside"):
        await runtime.access.write_archive(container_id, "/data", once(buffer.getvalue()))


async def test_what_is_missing_is_said(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    with pytest.raises(NotFound, match="/data/none"):
        await read(runtime, container_id, "/data/none")
    with pytest.raises(NotFound, match="no such directory"):
        await runtime.access.write_archive(container_id, "/none/below", once(archive_of(a=b"x")))
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("data"))
    with pytest.raises(InvalidArgument, match="cannot overwrite directory"):
        await runtime.access.write_archive(container_id, "/", once(data.getvalue()))


async def test_a_directory_never_takes_the_place_of_a_file(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    await runtime.access.write_archive(container_id, "/data", once(archive_of(a=b"kept")))
    with pytest.raises(InvalidArgument, match="cannot overwrite non-directory /data/d/a with directory"):
        await runtime.access.write_archive(container_id, "/data/d/a", once(archive_of(b=b"x")))


async def test_a_damaged_archive_is_refused(runtime: Runtime) -> None:
    container_id = await idle(runtime)
    with pytest.raises(InvalidArgument):
        await runtime.access.write_archive(container_id, "/data", once(archive_of(a=b"x" * 3000)[:2000]))
