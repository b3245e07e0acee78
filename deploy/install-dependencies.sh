#!/usr/bin/env bash
# The Debian packages that pyswarm needs on a host, and (unless TESTS=no) those that its tests use. Does nothing when all
# are there.
set -euo pipefail

runtime=(crun runc conmon libnftables1 iproute2 wireguard-go busybox-static python3 python3-venv)
tests=(nftables procps curl iputils-ping util-linux strace wireguard-tools dnsperf)

wanted=("${runtime[@]}")
[ "${TESTS:-yes}" = no ] || wanted+=("${tests[@]}")
missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "pyswarm needs: ${missing[*]} - install them with your package manager, this script knows only apt" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "pyswarm needs: ${missing[*]} - run as root, or: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "Installing Debian packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "apt-get failed, see above" >&2
  exit 1
fi
