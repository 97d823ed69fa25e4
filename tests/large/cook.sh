#!/usr/bin/env bash
# The uniform soup of three checkpoints of the size of ViT-G (1.84 B parameters, 6.9 GiB each, of nothing but zeros: sparse files) by
# one worker with 2 GiB of memory and a disk cache, and its peak memory. Needs the release binary, Python, GNU time, 12 GB of memory
# and 30 GB of disk; takes about two minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
soupctl=$(realpath "${SOUPCTL:-target/release/soupctl}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 tests/large/pool.py "$folder"
mkdir "$folder/cache"
/usr/bin/time -f '%e seconds, %M KB at the peak' "$soupctl" cook --pool "$folder/pool" --validation "$folder/images" \
    --recipe uniform --no-baselines --batch-size 1 --diagnose none --workers 1 --threads 2 \
    --memory 2GiB --disk-cache "$folder/cache" --output "$folder/soup" --quiet
