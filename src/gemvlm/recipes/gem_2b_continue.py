"""gem_2b_continue: train a published GEM-2B further as the authors' released script does.

    torchrun --nproc-per-node 8 -m gemvlm train gem_2b_continue --start GEM-2B --data sets/mine --out out/mine
    gemvlm train gem_2b_continue --plan --gpus 8 --gpu a800-80gb

Only the mergers and the language model learn; the depth loss reaches them through a frozen connector and generator.
Every number is the released script's [code], but that our mergers include those of DeepStack, which its switch missed.
"""

from __future__ import annotations

from dataclasses import replace

from gemvlm.recipes.published import MODEL_2B, RATE, paper_stages, published_recipe
from gemvlm.recipes.recipe import Start

_STAGE = replace(
    paper_stages()[-1],
    name="continue",
    learning_rates=dict.fromkeys(("merger", "language"), RATE),  # [code]
)

GEM_2B_CONTINUE = published_recipe("gem_2b_continue", MODEL_2B, (_STAGE,), Start(trained=("connector", "generator")))
