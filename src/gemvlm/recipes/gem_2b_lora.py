"""gem_2b_lora: the paper's stages on one GPU; in the last the language model learns by low-rank adapters.

    gemvlm train gem_2b_lora --data sets/mine --out out/mine
    gemvlm train gem_2b_lora --plan --gpu h100-80gb

Rank 64, alpha 128, dropout 0.05 on the attention's projections [code]; connector and generator learn in full [ours: the
release freezes them beside its adapters], vision and mergers stay. The adapters are merged into the finished model.
docs/training.md has the plan of memory and speed; it is not measured.
"""

from __future__ import annotations

from dataclasses import replace

from gemvlm.recipes.published import MODEL_2B, QWEN_2B, SANA, paper_stages, published_recipe
from gemvlm.recipes.recipe import Start
from gemvlm.training.stage import LoraConfig

PACKS_PER_STEP = 8  # [ours]
ADAPTERS = LoraConfig(
    rank=64, alpha=128.0, layers={"language": ("q_proj", "k_proj", "v_proj", "o_proj")}, dropout=0.05
)  # [code]
ADAPTER_RATE = 1e-4  # [ours: ten times the rate of whole weights, as is usual]

_CONNECTOR, _GENERATOR, _EVERYTHING = (replace(stage, batch_size=PACKS_PER_STEP) for stage in paper_stages())
_ADAPTED = replace(
    _EVERYTHING,
    name="3-adapters",
    learning_rates={"language": ADAPTER_RATE, "connector": 1e-5, "generator": 1e-5},
    lora=ADAPTERS,
)

GEM_2B_LORA = published_recipe(
    "gem_2b_lora", MODEL_2B, (_CONNECTOR, _GENERATOR, _ADAPTED), Start(qwen=QWEN_2B, sana=SANA)
)
