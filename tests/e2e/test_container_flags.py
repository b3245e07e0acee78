"""What the flags of `service create` and `update` say of a container is true in it; probes; images behind a login."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

HERE = ("--constraint", "node.hostname==n1")
PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
USER, PASSWORD = "reader", "Geheim-4711"
HASH = "$2b$05$abcdefghijklmnopqrstuuu4CurlKlZflZEXceLNt5g6P7qaCelxK"  # of the password, by bcrypt
REGISTRY = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:5000"}}
auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}
"""


def task_of(cluster: Cluster, service: str) -> str:
    """The running task of a service of one."""
    return next(iter(eventually(lambda: cluster.running(service), f"a running task of {service}")))


def seen(cluster: Cluster, service: str, script: str) -> str:
    """What a shell in the container says; the task may have been replaced just now."""
    task = task_of(cluster, service)
    return cluster.run("n1", "task", "exec", task, "/bin/sh", "-c", script).strip()


@pytest.fixture(scope="module")
def boxed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One service with nearly everything that a container may be told."""
    directory = tmp_path_factory.mktemp("flags")
    (directory / "seccomp.json").write_text(json.dumps(PROFILE))
    (directory / "env").write_text("FROM_FILE=yes\n")
    (directory / "bound").mkdir()
    (directory / "bound" / "file").write_text("bound")
    flags = [
        *(
            "--name",
            "boxed",
            "--hostname",
            "box",
            "--workdir",
            "/www",
            "--user",
            "0:0",
            "--env-file",
            f"{directory}/env",
        ),
        *("--group", "nogroup", "--group", "4242", "--host", "db:192.0.2.9", "--label", "a=b"),
        *("--dns", "192.0.2.1", "--dns-search", "a.test", "--dns-option", "timeout:1"),
        *("--ulimit", "nofile=64:128", "--oom-score-adj", "321", "--limit-memory", "64m", "--limit-pids", "50"),
        *("--memory-swap", "96m", "--shm-size", "8m", "--pid", "host", "--ipc", "host", "--init", "--read-only"),
        *("--device", "/dev/fuse:/dev/mine:r", "--security-opt", "no-new-privileges", "--cap-add", "SYS_TIME"),
        *("--security-opt", f"seccomp={directory}/seccomp.json", "--sysctl", "net.ipv4.ip_unprivileged_port_start=81"),
        *("--mount", f"type=bind,source={directory}/bound,target=/bound,readonly,bind-propagation=private"),
        *("--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=0700"),
        *(
            "--mount",
            "type=volume,target=/anonymous",
            "--mount",
            "type=volume,source=kept,target=/kept,volume-label=a=b",
        ),
        *("--log-driver", "local", "--log-opt", "max-size=1m", "--isolation", "default", "--stop-signal", "TERM"),
        *("--health-tcp", ":80", "--health-interval", "1s", "--health-start-interval", "200ms"),
    ]
    cluster.run("n1", "service", "create", "--detach", *flags, *HERE, IMAGE)
    yield cluster
    cluster.run("n1", "service", "rm", "boxed")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("hostname; pwd; echo $FROM_FILE", "box /www yes"),
        ("id -G", "0 4242 65534"),
        ("grep 192.0.2.9 /etc/hosts", "192.0.2.9 db"),
        ("cat /etc/resolv.conf", "nameserver 192.0.2.1 search a.test options timeout:1"),
        ("ulimit -Sn; ulimit -Hn", "64 128"),
        ("grep ' /scratch ' /proc/mounts | grep -c size=1024k; ls -ld /scratch | cut -c1-10", "1 drwx------"),
        (
            "(: < /dev/mine) && echo read; (: > /dev/mine) 2>/dev/null || echo refused",
            "read refused",
        ),
        ("grep NoNewPrivs /proc/self/status", "NoNewPrivs: 1"),
        ("mkdir /scratch/x 2>&1 | grep -c 'not permitted'", "1"),
        ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "81"),
        ("cat /bound/file; (echo x > /bound/file) 2>/dev/null || echo ' refused'", "bound refused"),
        ("echo x > /anonymous/file && echo x > /kept/file && echo wrote", "wrote"),
        ("(echo x > /www/file) 2>/dev/null || echo refused", "refused"),
        ("readlink /proc/self/ns/pid | grep -c pid; ls -d /proc/[0-9]* | grep -c . | grep -vc ^1$", "1 1"),
    ],
    ids=[
        *("process", "groups", "hosts", "dns", "ulimits", "tmpfs", "device", "no-new-privileges", "seccomp"),
        *("sysctl", "bind", "volumes", "read-only", "host-processes"),
    ],
)
def test_what_was_asked_for_is_true_in_the_container(boxed: Cluster, script: str, expected: str) -> None:
    assert seen(boxed, "boxed", script).split() == expected.split()


def test_inspect_shows_it_in_both_forms(boxed: Cluster) -> None:
    (service,) = json.loads(boxed.run("n1", "service", "inspect", "boxed"))
    container = service["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert container["Ulimits"] == [{"Name": "nofile", "Hard": 128, "Soft": 64}]
    assert container["Healthcheck"]["Test"] == ["TCP", ":80"]
    assert container["Privileges"]["Seccomp"]["Mode"] == "custom"
    pretty = boxed.run("n1", "service", "inspect", "--pretty", "boxed")
    assert " Device:\t/dev/fuse:/dev/mine:r" in pretty.splitlines()


def test_an_update_adds_and_removes(boxed: Cluster) -> None:
    flags = ["--ulimit-add", "nofile=65", "--ulimit-add", "core=0", "--group-rm", "4242", "--device-rm", "/dev/mine"]
    boxed.run("n1", "service", "update", *flags, "--security-opt", "seccomp=unconfined", "boxed")
    script = "ulimit -Sn; ulimit -c; id -G; mkdir /scratch/x && echo made; ls /dev/mine 2>/dev/null || echo gone"
    assert seen(boxed, "boxed", script).split() == ["65", "0", "0", "65534", "made", "gone"]


def test_a_probe_over_http_says_when_a_task_runs(cluster: Cluster) -> None:
    create = ["service", "create", "--detach", "--health-interval", "1s", "--health-start-period", "60s"]
    for name, url in (("answers", "http://:80/cgi-bin/index.cgi"), ("silent", "http://:81/")):
        cluster.run("n1", *create, "--name", name, "--health-http", url, *HERE, IMAGE)
    try:
        healthy = json.loads(cluster.run("n1", "task", "inspect", task_of(cluster, "answers")))[0]
        assert healthy["Status"]["ContainerStatus"]["Health"] == "healthy"
        rows = cluster.run("n1", "service", "ps", "silent", "--format", "{{.CurrentState}}").splitlines()
        assert not any(row.startswith("Running") for row in rows)
    finally:
        cluster.run("n1", "service", "rm", "answers", "silent")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--ulimit", "files=1"), "invalid ulimit type: files"),
        (
            ("--mount", "type=bind,target=/x,tmpfs-size=1m,source=/y"),
            "cannot mix 'tmpfs-*' options with mount type 'bind'",
        ),
        (("--isolation", "hyperv"), "linux only supports 'default'"),
        (("--credential-spec", "file://x"), "credential specs are of Windows containers"),
        (("--health-cmd", "x", "--no-healthcheck"), "--no-healthcheck conflicts with --health-* options"),
        (("--memory-swap", "1g"), "You should always set the Memory limit when using Memoryswap limit"),
    ],
    ids=["ulimit", "mount", "isolation", "credential-spec", "health", "swap"],
)
def test_refusals(cluster: Cluster, flags: tuple[str, ...], sentence: str) -> None:
    done = cluster.on("n1", "pyswarm", "service", "create", "--detach", "--name", "never", *flags, IMAGE)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_a_driver_that_the_node_lacks_ends_the_task_with_a_reason(cluster: Cluster) -> None:
    cluster.run("n1", "service", "create", "--detach", "--name", "unlogged", "--log-driver", "fluentd", *HERE, IMAGE)
    try:
        argv = ("service", "ps", "unlogged", "--no-trunc", "--format", "{{.Error}}")
        reason = eventually(lambda: cluster.run("n1", *argv).strip(), "a reason")
        assert "fluentd" in reason or "missing plugin" in reason
    finally:
        cluster.run("n1", "service", "rm", "unlogged")


@pytest.fixture
def registry(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A registry with a login on n1's loopback; an image in it that no node has. Gives docker's directory."""
    if not all(map(shutil.which, ("docker-registry", "skopeo"))):
        pytest.skip("needs docker-registry and skopeo")
    (tmp_path / "htpasswd").write_text(f"{USER}:{HASH}\n")
    (tmp_path / "registry.yml").write_text(REGISTRY.format(root=tmp_path))
    entry = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"127.0.0.1:5000": entry}}))
    start = f"setsid docker-registry serve {tmp_path}/registry.yml >/dev/null 2>&1 & echo $!"
    pid = cluster.on("n1", "sh", "-c", start).stdout.strip()
    try:
        skopeo = ("skopeo", "copy", "--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}")
        _write_layout(tmp_path / "layout")
        source = f"oci:{tmp_path}/layout"

        def push() -> bool:
            return cluster.on("n1", *skopeo, source, "docker://127.0.0.1:5000/app:1").returncode == 0

        eventually(push, "an image in the registry")
        yield tmp_path
    finally:
        cluster.on("n1", "kill", pid)


def _write_layout(directory: Path) -> None:
    """An image of one layer, as OCI lays it out."""
    import gzip  # noqa: PLC0415
    import hashlib  # noqa: PLC0415

    from pyswarm_lab.image import write_rootfs  # noqa: PLC0415

    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    write_rootfs(directory / "rootfs.tar")
    layer = (directory / "rootfs.tar").read_bytes()

    def put(data: bytes, kind: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{name}", "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {"Cmd": ["/bin/serve"]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [put(gzip.compress(layer), "layer.v1.tar+gzip")],
    }
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def test_an_image_behind_a_login_is_pinned_and_pulled(cluster: Cluster, registry: Path) -> None:
    def create(name: str, *flags: str) -> str:
        command = ("env", f"DOCKER_CONFIG={registry}", "pyswarm", "service", "create", "--detach", "--name", name)
        done = cluster.on("n1", *command, *flags, *HERE, "127.0.0.1:5000/app:1")
        assert done.returncode == 0, done.stderr
        return done.stderr

    try:
        assert create("pulled", "--with-registry-auth") == ""
        task_of(cluster, "pulled")
        shown = cluster.run("n1", "service", "inspect", "pulled")
        assert "127.0.0.1:5000/app:1@sha256:" in shown
        warning = create("locked-out")
        assert warning.startswith("image 127.0.0.1:5000/app:1 could not be accessed on a registry to record\n")
        argv = ("service", "ps", "locked-out", "--no-trunc", "--format", "{{.Error}}")
        refused = eventually(lambda: cluster.run("n1", *argv).strip(), "a refusal")
        assert "pull access denied for 127.0.0.1:5000/app" in refused
        everything = shown + cluster.run("n1", "task", "inspect", task_of(cluster, "pulled")) + cluster.lab.log("n1")
        assert PASSWORD not in everything
    finally:
        cluster.on("n1", "pyswarm", "service", "rm", "pulled", "locked-out")
