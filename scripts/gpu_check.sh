#!/usr/bin/env bash
# The GPU check from a bare checkout: needs Python >= 3.11 with torch, no network. What that Python
# lacks is taken from .gpu-wheels, which scripts/gpu_wheels.sh fills elsewhere. Arguments: see
# scripts/gpu_check.py.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
path=$PWD/src

if compgen -G '.gpu-wheels/*.whl' >/dev/null && [[ " $* " != *" --dry-run "* || -n ${WITH_WHEELS:-} ]]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --disable-pip-version-check --target "$site" .gpu-wheels/*.whl
  path=$path:$site
fi

PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH} "$python" scripts/gpu_check.py "$@"
