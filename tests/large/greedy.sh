#!/usr/bin/env bash
# The greedy soup of four checkpoints of the size of ViT-G/14 (1.84 B parameters, bf16, 3.4 GiB each, of noise) over eight images, by one
# worker on two threads with 4 GiB of memory and a disk cache: time, peak memory, and how often each byte of the pool was read. Needs the
# release binary, Python, GNU time, 14 GB of memory and 32 GB of disk.
#
#   tests/large/greedy.sh small   eight checkpoints of 305 M parameters, with 1 GiB of memory, every trial judged in full: 3 GB of memory, 12 of disk
set -euo pipefail
cd "$(dirname "$0")/../.."
soupctl=$(realpath "${SOUPCTL:-target/release/soupctl}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
case "$*" in
    "") memory=4GiB evaluate=early ;;
    small) memory=1GiB evaluate=full ;;
    *) echo "tests/large/greedy.sh [small]" >&2; exit 2 ;;
esac
python3 tests/large/pool.py "$folder" noise "$@"
mkdir "$folder/cache"
/usr/bin/time -f '%e seconds, %M KB at the peak' "$soupctl" cook --pool "$folder/pool" --validation "$folder/images" \
    --recipe greedy --no-baselines --batch-size 4 --diagnose none --workers 1 --threads 2 \
    --memory "$memory" --evaluate "$evaluate" --disk-cache "$folder/cache" --output "$folder/soup" --quiet -o json > "$folder/result.json"
python3 - "$folder/result.json" <<'END'
import json, sys
result = json.load(open(sys.argv[1]))
print(f"{len(result['ingredients'])} ingredients chosen, {len(result['trials'])} trials, SHA-256 {result['sha256']}")
print({name: round(seconds, 1) for name, seconds in result["seconds"].items()}, "seconds")
print(f"{result['pool_bytes_read'] / 2**30:.2f} GiB read of the pool")
END
