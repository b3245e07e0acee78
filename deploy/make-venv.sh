#!/usr/bin/env bash
# A virtual environment with pyswarm (editable) and its development tools. Does nothing while pyproject.toml is unchanged.
set -euo pipefail
venv=${1:-.venv}
cd "$(dirname "$0")/.."

wanted=$(sha256sum pyproject.toml deploy/make-venv.sh | sha256sum | cut -d' ' -f1)
stamp=$venv/.pyswarm-stamp
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi

python=
for candidate in python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "pyswarm needs Python 3.11 or later with the venv module (apt-get install python3 python3-venv)" >&2
  exit 1
fi
echo "Installing Python packages into $venv"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -e '.[dev]'
echo "$wanted" >"$stamp"
