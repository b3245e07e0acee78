"""A small image for demonstrations and tests, out of the machine's own static busybox: no registry is needed.

`serve` answers HTTP on port 80 with the container's host name. `ask NAME` asks a service again and again, by its
virtual address and by the addresses of its tasks, and prints who answered.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from pyswarm_lab.errors import LabError

BUSYBOX = Path("/bin/busybox")
CHANGES = ('CMD ["/bin/serve"]', "EXPOSE 80")

# The shell is the first process of the container and as such ignores what it does not handle: so it handles TERM.
_SERVE = """#!/bin/sh
trap 'exit 0' TERM INT
httpd -f -p "${PORT:-80}" -h /www &
wait
"""
_ANSWER = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
hostname
"""
# Not `wget -T`: in Debian 12's busybox it ends in a segmentation fault.
_ASK = """#!/bin/sh
trap 'exit 0' TERM INT
say() { who=$(timeout 2 wget -q -O - "http://$2/" 2>/dev/null) && echo "$1 $2 answered $who" || echo "$1 $2 failed"; }
vip=$(nslookup -type=a "$1" 2>/dev/null | awk '/^Name:/ {seen=1} /^Address/ && seen {print $NF}')
while true; do
  say "name $1 (VIP $vip)" "$1"
  for address in $(nslookup -type=a "tasks.$1" 2>/dev/null | awk '/^Name:/ {seen=1} /^Address/ && seen {print $NF}'); do
    say "task of tasks.$1" "$address"
  done
  sleep 1 &
  wait $!
done
"""
_FILES = {
    "bin/serve": (_SERVE, 0o755),
    "bin/ask": (_ASK, 0o755),
    "www/cgi-bin/index.cgi": (_ANSWER, 0o755),
    "etc/passwd": ("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644),
    "etc/group": ("root:x:0:\nnogroup:x:65534:\n", 0o644),
}
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "www", "www/cgi-bin")


def write_rootfs(path: Path) -> None:
    """Write the root filesystem as a tar archive."""
    if not BUSYBOX.exists():
        raise LabError("There is no /bin/busybox to build an image of: install busybox-static.")
    applets = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(path, "w") as archive:
        for name in _FOLDERS:
            archive.addfile(_entry(name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755))
        _add(archive, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for applet in applets:
            if applet not in ("busybox", "serve", "ask"):
                link = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
                link.linkname = "busybox"
                archive.addfile(link)
        for name, (text, mode) in _FILES.items():
            _add(archive, name, text.encode(), mode)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """Without times and owners: the same busybox gives the same image."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
