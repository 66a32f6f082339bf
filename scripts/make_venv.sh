#!/usr/bin/env bash
# Builds a virtual environment of the project: make_venv.sh FOLDER CONSTRAINTS EXTRAS. No root needed.
set -euo pipefail
venv=$1 constraints=$2 extras=$3
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "thetaone needs Python >= 3.11; $python is $("$python" --version 2>&1)." \
    "Pass another one: make PYTHON=python3.12 ..." >&2
  exit 2
}
if [ ! -x "$venv/bin/pip" ]; then
  # Debian and Ubuntu ship python3 without ensurepip unless python3-venv is installed, hence the
  # two other ways, which need no root either.
  "$python" -m venv "$venv" 2>/dev/null ||
    "$python" -m virtualenv "$venv" 2>/dev/null ||
    { "$python" -m venv --clear --without-pip "$venv" &&
      "$python" -m pip --python "$venv/bin/python" install pip; } || {
    echo "cannot make a virtual environment: $python has neither venv with ensurepip, virtualenv" \
      "nor pip. Install one of them, e.g. apt-get install python3-venv" >&2
    exit 2
  }
fi
# shellcheck disable=SC2086 # PIP_OPTIONS is a list of options
"$venv/bin/pip" install --quiet --disable-pip-version-check ${PIP_OPTIONS:-} \
  --constraint "$constraints" --editable ".[$extras]"
touch "$venv/.installed"
