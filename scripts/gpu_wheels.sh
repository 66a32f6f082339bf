#!/usr/bin/env bash
# Collects the wheels that a CUDA machine with torch lacks: gpu_wheels.sh FOLDER. The versions are
# those of this environment; the wheels are for Python 3.12 on x86-64 Linux, or GPU_PYTHON=3.13.
set -euo pipefail
folder=$1
python=${PYTHON:-.venv/bin/python}

rm -rf "$folder"
mkdir -p "$folder"
platforms=()
for glibc in 5 12 17 24 27 28 31 34 35; do
  platforms+=(--platform "manylinux_2_${glibc}_x86_64")
done
"$python" scripts/gpu_requirements.py >"$folder/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version "${GPU_PYTHON:-3.12}" --implementation cp "${platforms[@]}" \
  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
  --requirement "$folder/requirements.txt" --dest "$folder"
du -sh "$folder"
