"""gem_2b: the paper's model and its three stages, from published Qwen3-VL-2B, SANA 1.5 1.6B and DC-AE.

    gemvlm curate gem_4m --out sets/gem --root gem-250k=data/GEM-250K ...
    torchrun --nproc-per-node 8 -m gemvlm train gem_2b --data sets/gem --out out/gem-2b
    gemvlm train gem_2b --plan --gpus 8 --gpu a800-80gb          # memory, operations, time; nothing is loaded

The parts are read from the hub; `--start qwen=FOLDER --start sana=FOLDER` reads them from folders. The numbers are in
`recipes/published.py`, each marked [paper], [code] or [ours]; docs/training.md has the table of memory and speed that
`--plan` computes. They are a plan: nobody has measured a training of this size with this code.
"""

from __future__ import annotations

from gemvlm.recipes.published import MODEL_2B, QWEN_2B, SANA, paper_stages, published_recipe
from gemvlm.recipes.recipe import Start

GEM_2B = published_recipe("gem_2b", MODEL_2B, paper_stages(), Start(qwen=QWEN_2B, sana=SANA))
