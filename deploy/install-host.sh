#!/usr/bin/env bash
# Installs pyswarm on this machine, as root: Debian packages, Python packages in /opt/pyswarm, commands in
# /usr/local/bin, and the systemd unit, started where systemd runs. Run it again to upgrade: containers keep running.
set -euo pipefail
prefix=${PYSWARM_PREFIX:-/opt/pyswarm}
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
  echo "run as root: it installs packages, commands and a systemd unit" >&2
  exit 1
fi
TESTS=no deploy/install-dependencies.sh

[ -x "$prefix/bin/python" ] || python3 -m venv "$prefix"
echo "Installing Python packages into $prefix"
"$prefix/bin/pip" install -q --disable-pip-version-check --upgrade .
for program in pyswarm pyswarmd pyswarm-manager; do
  ln -sfn "$prefix/bin/$program" "/usr/local/bin/$program"
done

install -D -m 644 deploy/pyswarmd.service /etc/systemd/system/pyswarmd.service
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl enable --quiet pyswarmd
  systemctl restart pyswarmd
  echo "pyswarmd runs. Next: pyswarm init, or pyswarm join on the other hosts."
else
  echo "No systemd here: start 'pyswarmd' yourself. Next: pyswarm init, or pyswarm join on the other hosts."
fi
