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
rm -f "$venv/install.log" # pip appends
# shellcheck disable=SC2086 # PIP_OPTIONS is a list of options
"$venv/bin/pip" install --quiet --disable-pip-version-check ${PIP_OPTIONS:-} \
  --progress-bar off --log "$venv/install.log" \
  --constraint "$constraints" --editable ".[$extras]" || {
  sed -n '/The conflict is caused by/,/^[^ ]* *$/p' "$venv/install.log" >&2 # --quiet leaves it out
  echo "installing [$extras] failed; every step is in $venv/install.log" >&2
  exit 1
}
touch "$venv/.installed"
