"""gem_8b: the same stages from published Qwen3-VL-8B, whose language head is its own.

    torchrun --nproc-per-node 8 -m gemvlm train gem_8b --data sets/gem --out out/gem-8b
    gemvlm train gem_8b --plan --gpus 8 --gpu h100-80gb          # memory, operations, time; nothing is loaded

The paper reports this size; what it says of stages holds for both. The plan is in docs/training.md, not measured.
"""

from __future__ import annotations

from gemvlm.recipes.published import MODEL_8B, QWEN_8B, SANA, paper_stages, published_recipe
from gemvlm.recipes.recipe import Start

GEM_8B = published_recipe("gem_8b", MODEL_8B, paper_stages(), Start(qwen=QWEN_8B, sana=SANA))
