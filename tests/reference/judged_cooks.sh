#!/usr/bin/env bash
# Cooks the pools of text_pool.py and tiny_pools.py with the judges of python/, and compares each cook with plain PyTorch.
#
#   SOUPCTL=target/release/soupctl PYTHON=/tmp/venv-reference/bin/python tests/reference/judged_cooks.sh POOLS [NAME…]
#
# POOLS has the folders text, t5, causal-lm, clip, resnet, efficientnet and vit; NAME is one of them. Beside each lies NAME.json (of
# those with running statistics NAME-average.json and so on), what judged_torch.py says of it; where it does not, it is asked. Exits with 1 where a cook differs in a name, an order, a count, a verdict
# or a bit.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
soupctl="$(realpath "${SOUPCTL:-$here/../../target/release/soupctl}")"
python="${PYTHON:-python3}"
pools="$(realpath "$1")"
shift
export PYTHONPATH="$here/../../python/src"

failed=0
for name in "${@:-text t5 causal-lm clip resnet efficientnet vit}"; do
    for pool in $name; do
        folder="$pools/$pool"
        case "$pool" in
            text) kind=text judge="sequence-classification --tokenizer $folder --max-length 48" data=jsonl ;;
            t5) kind=seq2seq judge="t5-label-text --tokenizer $folder" data=jsonl ;;
            causal-lm) kind=causal-lm judge="causal-perplexity --tokenizer $folder" data=txt ;;
            clip) kind=clip judge="clip-zero-shot --tokenizer $folder --prompts $folder/prompts.json" data=parquet ;;
            *) kind=images judge="image-classification" data=parquet ;;
        esac
        case "$pool" in
            text) cooks="greedy:accuracy+binary-f1 greedy:matthews pruned:accuracy+binary-f1 pruned:matthews" ;;
            causal-lm) cooks="greedy:perplexity" ;;
            *) cooks="greedy:accuracy" ;;
        esac
        # Each way of running statistics is another soup.
        case "$pool" in
            resnet | efficientnet) ways="average first recompute" ;;
            *) ways="none" ;;
        esac
        for way in $ways; do
            said="$pools/$pool-$way"
            test=(--test "test=$folder/data/test.$data")
            statistics=()
            case "$way" in
                none) said="$pools/$pool" ;;
                recompute) statistics=(--batch-norm recompute --calibration "$folder/data/calibration.$data") ;;
                *) statistics=(--batch-norm "$way") ;;
            esac
            if [ ! -f "$said.json" ]; then
                if [ "$pool" = text ]; then
                    "$python" "$here/greedy_text_torch.py" "$folder" "${test[@]}" > "$said.json"
                else
                    "$python" "$here/judged_torch.py" "$folder" --kind "$kind" --threads "${THREADS:-1}" "${test[@]}" \
                        "${statistics[@]}" > "$said.json"
                fi
            fi
            for cook in $cooks; do
                "$soupctl" cook --pool "$folder" --recipe "${cook%%:*}" --evaluate full --metric "${cook#*:}" --quiet -o json --fresh --overwrite \
                    --judge "hf=cmd:exec $python -m soup_judge.transformers $judge --threads ${THREADS:-1}" \
                    --workers "${WORKERS:-1}" --validation "$folder/data/val.$data" "${test[@]}" "${statistics[@]}" \
                    --output "$pools/soups/$pool" > "$said.soupctl.json"
                printf '%-13s %-10s %-26s ' "$pool" "$way" "$cook"
                "$python" "$here/compare_cooks.py" "$said.soupctl.json" "$said.json" || failed=1
            done
        done
    done
done
exit "$failed"
