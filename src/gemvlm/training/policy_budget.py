"""`Budget` of a policy: its backbone as far as a stage needs it, what it paints with, and the action expert.

The expert's products are exact; what it keeps is counted like the decoder's layers (`budget.py`), per step of a chunk
and register, with the keys and values of what it sees. Backbone layers above the last that the expert looks at run only
for losses on words or targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from gemvlm.batch import Batch
from gemvlm.model.action_expert import ActionExpert
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import GROUPS
from gemvlm.model.gem_vla import GemVlaConfig
from gemvlm.runtime import Precision
from gemvlm.training.budget import Budget, Load, Memory, Part
from gemvlm.training.stage import Stage

EXPERT = "expert"
PAINTING = ("connector", "generator", "latents")
ONCE = ("adaLN_modulation", "t_embedder", "state_adaptor")
"""Parts of the expert that run once for a chunk, not for each of its steps."""


class PolicyBudget(Budget):
    """`gem` gives the sizes of what paints, whether the policy carries it or not. A load has a chunk for each row."""

    def __init__(self, config: GemVlaConfig, gem: GemConfig):
        super().__init__(gem)
        self.policy, self.carries = config, config.supervision is not None
        with torch.device("meta"):
            expert = ActionExpert(config.expert, self.width)
        shapes = {name: tuple(parameter.shape) for name, parameter in expert.named_parameters()}
        self.expert = {name: size[0] * size[1] for name, size in shapes.items() if len(size) == 2}
        self.groups = {name: count for name, count in self.groups.items() if self.carries or name not in PAINTING}
        self.groups |= {} if self.carries else {"latents": 0}
        self.groups[EXPERT] = sum(parameter.numel() for parameter in expert.parameters())
        self._hidden[EXPERT] = sum(self.expert.values())
        self._whole = True

    def parts(
        self,
        load: Load,
        precision: Precision,
        learns: Iterable[str] = (*GROUPS, EXPERT),
        *,
        on_cpu: bool = False,
    ) -> list[Part]:
        """As `Budget.parts`, with the expert last."""
        found = [
            replace(part, kept=0, forward=0, temporary=0) if self._idle(part) else part
            for part in super().parts(load, precision, learns, on_cpu=on_cpu)
            if self.carries or part.group not in PAINTING
        ]
        return [*found, self._expert(load, precision)]

    def memory(self, stage: Stage, load: Load, precision: Precision, **options: bool | int) -> Memory:
        self._whole = _reads_all(stage)
        return super().memory(stage, load, precision, **options)  # type: ignore[arg-type]

    def operations(self, stage: Stage, load: Load, precision: Precision = "bfloat16") -> dict[str, float]:
        self._whole = _reads_all(stage)
        return super().operations(stage, load, precision)

    def _idle(self, part: Part) -> bool:
        """Whether the part does not run for actions alone."""
        if self._whole:
            return False
        layers, conditioning = self.policy.expert.layers, self.policy.expert.conditioning
        last = max(layers) if conditioning == "layer_inputs" else max(layers) + 1
        number = part.name.removeprefix("decoder")
        return part.name == "head" or (number.isdecimal() and int(number) >= max(1, last))

    def _expert(self, load: Load, precision: Precision) -> Part:
        config, chunks = self.policy.expert, len(load.rows)
        draws, width = self.policy.draws * chunks, config.width
        steps = config.horizon + config.registers
        seen = chunks * max(load.rows, default=0)
        work = 0.0
        for name, size in self.expert.items():
            on_context = ".cross_attn.wkv" in name or "lang_adaptor" in name
            once = any(words in name for words in ONCE)
            rows = seen * self._uses(name) if on_context else draws if once else draws * steps
            work += 2.0 * size * rows
        work += config.depth * 4.0 * draws * steps * width * (steps + max(load.rows, default=0))
        keys = config.kv_heads * config.head_size
        each = 2 * (13 * width + 4 * config.ffn_width + 5 * width + 5 * keys) * (1 if precision == "bfloat16" else 2)
        kept = config.depth * (draws * steps * each + seen * 4 * keys) + 4.0 * self.width * seen * len(config.layers)
        return Part(EXPERT, EXPERT, self.groups[EXPERT], sum(self.expert.values()), kept, work)

    def _uses(self, name: str) -> int:
        """How often a product on what is seen runs: adaptors once for each layer that is looked at."""
        return len(self.policy.expert.layers) if "lang_adaptor" in name else 1


def policy_load(batch: Batch, stage: Stage, factor: int) -> Load:
    """As `Load.of`, but for actions what stands behind the last image is read, too."""
    load = Load.of(batch, stage, factor)
    acts = "action" in stage.loss_weights and batch.actions is not None
    return replace(load, rows=tuple(batch.lengths.tolist())) if acts else load


def _reads_all(stage: Stage) -> bool:
    return bool(set(stage.loss_weights) - {"action"})
