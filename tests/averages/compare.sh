#!/usr/bin/env bash
# Averages without data, beside plain reads and writes of the same bytes and mergekit: see compare.py. Needs the release binary,
# Python and 4 GB of disk; installs numpy, safetensors, torch and mergekit into a virtual environment in FOLDER.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
if [ ! -x "$folder/venv/bin/mergekit-pytorch" ]; then
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/pip" install --quiet numpy safetensors mergekit
fi
PATH="$folder/venv/bin:$PATH" exec "$folder/venv/bin/python" tests/averages/compare.py \
    "${SOUPCTL:-target/release/soupctl}" "$folder" "${@:2}"
