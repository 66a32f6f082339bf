#!/usr/bin/env bash
# Makes a release: release.sh [VERSION]. With a version, it is written where it stands and changelog.d
# is gathered under it, dated today. Then sdist and wheel are built, and the wheel is installed and
# used in an environment of its own. Nothing is committed, tagged or uploaded.
set -euo pipefail
version=${1:-}
bin=${BIN:-.venv/bin}

if [ -n "$version" ]; then
  "$bin/python" scripts/gather_changelog.py "$version"
fi

rm -rf dist
"$bin/python" -m build --outdir dist .

wheels=(dist/*.whl)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt \
  "${wheels[0]}"
"$scratch/venv/bin/pip" check
OMP_NUM_THREADS=1 "$scratch/venv/bin/python" -I scripts/try_wheel.py "$scratch/out"

ls -l dist
echo "next: read CHANGELOG.md, commit, tag v$("$bin/python" -c 'import thetaone; print(thetaone.__version__)'), upload dist/"
