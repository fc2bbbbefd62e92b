#!/usr/bin/env bash
# GEM-2B from published parts on one machine: look, curate, train (goes on if interrupted), score, export.
#
#   ROOTS="--root gem-250k=data/GEM-250K --root refspatial=data/RefSpatial" bash runs/gem_2b.sh out/gem-2b
#
# The plan of memory and time: docs/training.md. QWEN and SANA may be folders; without them the hub is asked.
set -euo pipefail
out=${1:-out/gem-2b}
set=${SET:-sets/gem}
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
start=(${QWEN:+--start qwen="$QWEN"} ${SANA:+--start sana="$SANA"})

gemvlm train gem_2b --plan --gpus "$gpus"
[ -d "$set" ] || gemvlm curate gem_4m --out "$set" ${ROOTS:-}

resume=$(compgen -G "$out/step-*" > /dev/null && echo --resume || true)
torchrun --standalone --nproc-per-node "$gpus" -m gemvlm train gem_2b --data "$set" --out "$out" "${start[@]}" --workers 4 $resume

gemvlm verify "$out/final" --out "$out/card"
gemvlm export-model "$out/final" --to qwen3-vl --out "$out/qwen3-vl" # for transformers, vLLM, SGLang
gemvlm export-model "$out/final" --to gem --out "$out/gem"           # the authors' layout
