#!/usr/bin/env bash
# The shipped model from nothing: train (goes on if interrupted), score, ship. Hours on two CPU cores.
set -euo pipefail
out=${1:-out/nano}
resume=$([ -d "$out" ] && echo --resume || true)
gemvlm train gem_nano --out "$out" $resume
gemvlm evaluate "$out/final" --out "$out/scores" --scenes 900 --questions 500 --depth-views 150
python -m gemvlm.recipes.ship "$out/final" "$out/scores" src/gemvlm/checkpoints/nano
