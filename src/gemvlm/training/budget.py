"""What a training step costs before it is taken: memory by part, and operations, from sizes alone.

**Memory** of one process is what stays, plus the largest that comes and goes at once:

    weights     4 bytes a parameter (float32, the autoencoder's too), shared by `shards` processes where they are spread
    optimizer   8 bytes a trained parameter for AdamW; Muon keeps 4 for hidden matrices
    gradients   4 bytes a trained parameter, growing while activations shrink in the backward pass
    copies      2 bytes a weight of every matrix product that is differentiated through, in bfloat16
    activations what autograd keeps; below

Autograd's keep was counted once with saved-tensor hooks on a model with a different width everywhere; per token and
layer, in bytes (float32; bfloat16 under autocast with fused attention), D width, I inner width, Q and K the widths of
queries and keys:

    decoder     4 (6 D + 4 I + 4 Q + 4 K)      26 D + 8 I + 10 Q + 10 K      per token
    vision      4 (10 D + 2 I)                 18 D + 4 I                    per patch
    merger      64 D                           32 D                          per token, D the vision tower's
    Sana        176 D + 16 D per condition     126 D + 18 D                  per latent, D the generator's
      frozen    136 D + 12 D                    88 D + 10 D                   (first block 96 D, 60 D)
    head        8 V                            10 V                          per supervised token, V the vocabulary

The backward pass is walked through part by part, from the last to the first: at each, what is still kept, the gradients
so far, and the part's own temporaries. The largest sum is the peak. A part that is frozen, and before which nothing
learns, keeps nothing. On a CPU the decoder keeps its attention's scores as well (`model/tiled_attention.py`).

**Operations** of a matrix product are 2 per weight and row; attention adds 4 per pair of positions and width (half of
them where it is causal). The backward pass takes as many again for what flows through, and as many again for what
learns. Recomputed activations are not counted: utilisation means useful work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gemvlm.batch import Batch
from gemvlm.model.backbone import LARGEST_LOGITS, supervised_tokens, until_last_image
from gemvlm.model.config import GemConfig
from gemvlm.model.gem import GROUPS, Gem, target_kind
from gemvlm.model.tiled_attention import Tiles
from gemvlm.runtime import Precision
from gemvlm.training.stage import Stage

WEIGHT, GRADIENT, ADAM, MUON, COPY = 4, 4, 8, 4, 2
"""Bytes a parameter."""
TEMPORARIES = {"vision": 0.35, "merger": 0.35, "language": 0.35, "connector": 0.0, "generator": 0.0, "expert": 0.35}
"""Of a part's kept activations: what its backward pass holds beside them. Fitted; the generator's holds no more than it
has freed."""
ENCODER_MAPS = 3
"""Feature maps of the autoencoder's first stage that live at once."""


@dataclass(frozen=True)
class Load:
    """What one process computes at once. Counts; `rows` are the lengths of samples, `images` the patches of each.

    `latents` holds (rows, columns) of each target, `conditions` the tokens that it is painted from.
    """

    rows: tuple[int, ...]
    images: tuple[int, ...]
    supervised: int
    latents: tuple[tuple[int, int], ...]
    conditions: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return sum(self.rows)

    @classmethod
    def of(cls, batch: Batch, stage: Stage, factor: int) -> Load:
        """Of a batch as the stage reads it; `factor` pixels to a latent."""
        text = "text" in stage.loss_weights
        kinds = {target_kind(name) for name in stage.loss_weights}
        targets = [t for t in batch.targets if t.kind in kinds]
        read = batch if text or not len(batch.spans) else until_last_image(batch)
        spans = (read.spans[:, 1] - read.spans[:, 0]).tolist()
        return cls(
            rows=tuple(read.lengths.tolist()),
            images=tuple(read.image_grid_thw.prod(1).tolist()),
            supervised=len(supervised_tokens(batch)) if text else 0,
            latents=tuple((t.picture.shape[1] // factor, t.picture.shape[2] // factor) for t in targets),
            conditions=tuple(int(spans[t.image]) for t in targets),
        )

    def times(self, count: int) -> Load:
        """So many of these at once."""
        lists = {name: getattr(self, name) * count for name in ("rows", "images", "latents", "conditions")}
        return Load(supervised=self.supervised * count, **lists)


@dataclass(frozen=True)
class Part:
    """A piece of the model in the order of the forward pass. `linear` counts the parameters of its matrix products."""

    name: str
    group: str
    parameters: int
    linear: int
    kept: int | float = 0
    forward: int | float = 0
    temporary: int | float = 0


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the fullest moment of a step, by part."""

    weights: int | float
    optimizer: int | float
    gradients: int | float
    copies: int | float
    activations: int | float
    logits: int | float
    generator: int | float
    autoencoder: int | float

    @property
    def total(self) -> float:
        return float(sum(vars(self).values()))


class Budget:
    """The costs of a model of `config`, built on the meta device: nothing is allocated."""

    def __init__(self, config: GemConfig):
        self.config = config
        with torch.device("meta"):
            gem = Gem(config)
        self._shapes = {name: tuple(parameter.shape) for name, parameter in gem.named_parameters()}
        self.groups = {
            group: sum(parameter.numel() for parameter in members.values())
            for group, members in gem.parameter_groups().items()
        }
        self._hidden = {
            group: sum(p.numel() for n, p in members.items() if p.ndim == 2 and not ("embed" in n or _is_table(n)))
            for group, members in gem.parameter_groups().items()
        }
        self._group_of = {name: group for group, members in gem.parameter_groups().items() for name in members}
        self.factor = gem.supervision.latents.factor
        text = gem.backbone.qwen.config.text_config
        self.vocabulary, self.width, self.inner = text.vocab_size, text.hidden_size, text.intermediate_size
        self.heads = text.num_attention_heads
        self.queries, self.keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
        vision = gem.backbone.qwen.config.vision_config
        self.vision_width, self.vision_inner = vision.hidden_size, vision.intermediate_size
        self.merged = vision.spatial_merge_size**2
        self.tied = gem.backbone.qwen.config.tie_word_embeddings
        self.mergers = 1 + len(vision.deepstack_visual_indexes)

    # ---- parts ----

    def parts(
        self, load: Load, precision: Precision, learns: Iterable[str] = GROUPS, *, on_cpu: bool = False
    ) -> list[Part]:
        """The model as the forward pass meets it, with what each part keeps and computes for this load."""
        half, tuned = precision == "bfloat16", "generator" in learns
        scores = self.heads * Tiles.scores(load.rows) * (2 if half else 4) if on_cpu else 0
        patches, tokens, pairs = sum(load.images), load.tokens, sum(n * n for n in load.rows)
        vision_pairs = sum(n * n for n in load.images)
        v, d, q, k, i = self.vision_width, self.width, self.queries, self.keys, self.inner
        per_patch = 18 * v + 4 * self.vision_inner if half else 4 * (10 * v + 2 * self.vision_inner)
        per_token = 26 * d + 8 * i + 10 * q + 10 * k if half else 4 * (6 * d + 4 * i + 4 * q + 4 * k)
        parts = []
        for name, (parameters, linear) in self._by_part().items():
            kind = name.rstrip("0123456789")
            if kind == "vision":
                work = 2 * linear * patches + 4 * vision_pairs * v
                parts.append(Part(name, "vision", parameters, linear, per_patch * patches, work))
            elif kind == "patches":
                parts.append(Part(name, "vision", parameters, linear, 8 * v * patches, 2 * linear * patches))
            elif kind == "mergers":
                kept = (32 if half else 64) * v * patches / self.merged * self.mergers
                parts.append(Part(name, "merger", parameters, linear, kept, 2 * linear * patches / self.merged))
            elif kind == "embedding":
                # where it is the head as well, its gradient is there since the head's, and another is added to it
                table = 0 if self.tied else parameters
                extra = GRADIENT * parameters if self.tied and load.supervised else 0.0
                parts.append(Part(name, "language", table, 0, 4 * d * tokens, 0.0, extra))
            elif kind == "decoder":
                work = 2 * linear * tokens + 2 * pairs * q
                parts.append(Part(name, "language", parameters, linear, per_token * tokens + scores, work))
            elif kind == "head":
                parts.append(self._head(name, load, half))
            elif kind == "connector":
                context = _padded(load.conditions)
                width = self.config.generator.get("caption_channels", self.config.generator.get("condition_width", 0))
                kept = (12 if half else 16) * width * context
                parts.append(Part(name, "connector", parameters, linear, kept, 2 * linear * context))
            elif kind in ("sana", "painter"):
                parts.append(self._generator(name, parameters, linear, load, half, tuned))
        return parts

    def _head(self, name: str, load: Load, half: bool) -> Part:
        """Logits in chunks of at most `LARGEST_LOGITS`, computed again in the backward pass if there are several."""
        logits = load.supervised * self.vocabulary
        at_once = min(logits, LARGEST_LOGITS)
        kept = 4.0 * at_once if logits == at_once else 4.0 * load.supervised * self.width
        temporary = at_once * (6.0 if half else 4.0) + (4.0 * at_once if logits > at_once else 0.0)
        linear = self.vocabulary * self.width
        return Part(name, "language", linear, linear, kept, 2.0 * linear * load.supervised, temporary)

    def _generator(self, name: str, parameters: int, linear: int, load: Load, half: bool, tuned: bool) -> Part:
        options = self.config.generator
        cells, context = sum(h * w for h, w in load.latents), _padded(load.conditions)
        if options["kind"] == "regression":
            width = options["width"]
            return Part(name, "generator", parameters, linear, 4 * 5 * width * cells, 2 * linear * cells)
        width = options["num_attention_heads"] * options["attention_head_dim"]
        cross = 4 * sum(h * w * c for (h, w), c in zip(load.latents, load.conditions, strict=True)) * width
        if name == "painter":
            on_context, on_time = self._linear_of(".caption_"), self._linear_of(".time_embed.")
            work = (
                2 * (linear - on_context - on_time) * cells + 2 * on_context * context + 2 * on_time * len(load.latents)
            )
            kept = (16 if tuned else 8) * width * (cells + context)
            return Part(name, "generator", parameters, linear, kept, work)
        table = 4 * width * (options["attention_head_dim"] + 1) * len(load.latents)
        per_cell, per_condition = {
            (False, True): (176, 16),
            (False, False): (136, 12),
            (True, True): (126, 18),
            (True, False): (88, 10),
        }[half, tuned]
        if name == "sana0" and not tuned:
            per_cell = 60 if half else 96  # its self-attention comes before anything that learns
        kept = width * (per_cell * cells + per_condition * context) + table
        on_context = 2 * width * width
        own = 4 * width * (options["attention_head_dim"] + 1) * cells  # linear attention: keys by values, by queries
        work = 2 * (linear - on_context) * cells + 2 * on_context * context + cross + own
        return Part(name, "generator", parameters, linear, kept, work)

    def _linear_of(self, words: str) -> int:
        """Parameters of matrix products whose names hold these words."""
        return sum(math.prod(shape) for name, shape in self._shapes.items() if words in name and len(shape) > 1)

    def _by_part(self) -> dict[str, tuple[int, int]]:
        """(parameters, those of matrix products) by part, in the order of the forward pass."""
        found: dict[str, list[int]] = {}
        for name, shape in self._shapes.items():
            part = _part_of(name)
            if part is not None:
                sums = found.setdefault(part, [0, 0])
                sums[0] += math.prod(shape)
                sums[1] += math.prod(shape) if len(shape) > 1 and not _is_table(name) else 0
        found.setdefault("head", [0, 0])  # tied to the embedding
        order = ("patches", "vision", "mergers", "embedding", "decoder", "head", "connector", "painter", "sana")
        by_order = sorted(found, key=lambda name: (order.index(name.rstrip("0123456789")), _number(name)))
        return {name: (found[name][0], found[name][1]) for name in by_order}

    # ---- memory ----

    def memory(
        self,
        stage: Stage,
        load: Load,
        precision: Precision,
        *,
        shards: int = 1,
        micro_batches: int = 1,
        cached_latents: bool = False,
        recompute: bool = False,
        on_cpu: bool = False,
    ) -> Memory:
        """Of one process at its fullest moment. `shards` processes hold the weights together; `recompute` keeps only
        each block's input and computes its activations again."""
        learns = set(stage.learning_rates)
        parts, half = self.parts(load, precision, learns, on_cpu=on_cpu), precision == "bfloat16"
        begins = next((at for at, part in enumerate(parts) if part.group in learns), len(parts))
        frozen = self.groups["latents"] * WEIGHT
        weights = frozen + (sum(self.groups.values()) - self.groups["latents"]) * WEIGHT / shards
        adapters = self._adapters(stage)
        trained = {group: adapters.get(group, count) for group, count in self.groups.items() if group in learns}
        muon = stage.optimizer.kind == "muon"
        optimizer = sum(
            ADAM * count - (ADAM - MUON) * (min(self._hidden[group], count) if muon else 0)
            for group, count in trained.items()
        )
        copies = sum(COPY * part.linear for part in parts[begins:]) if half else 0.0
        if shards > 1:
            copies = self._gathered(parts, learns)
        encoder = 0.0 if cached_latents else self._encoder(load, half)
        kept = [0.0 if at < begins else part.kept for at, part in enumerate(parts)]
        again = max(kept, default=0.0) if recompute else 0.0
        if recompute:
            kept = [min(k, self._input(part, load)) for k, part in zip(kept, parts, strict=True)]
        whole = sum(trained.values()) * GRADIENT / shards
        peak, at_peak = 0.0, (0.0, 0.0, len(parts))
        gradients = whole if micro_batches > 1 else 0.0
        for at in range(len(parts) - 1, begins - 1, -1):
            part = parts[at]
            share = trained.get(part.group, 0) / max(1, self.groups[part.group])
            own = 0.0 if micro_batches > 1 else share * part.parameters * GRADIENT / shards
            passing = part.temporary + TEMPORARIES[part.group] * (again or kept[at]) + again
            gradients += own
            moment = sum(kept[: at + 1]) + gradients + passing
            if moment > peak:
                peak, at_peak = moment, (gradients, passing, at + 1)
        before = [part.group not in ("generator", "connector") for part in parts]
        during_encoding = sum(k for k, is_before in zip(kept, before, strict=True) if is_before)
        during_encoding += encoder + (whole if micro_batches > 1 else 0.0)
        if whole > max(peak, during_encoding):
            peak, at_peak = whole, (whole, 0.0, 0)
        gradients, passing, upto = at_peak
        encoding = max(0.0, during_encoding - peak)
        named = {part.name: k for part, k in zip(parts[:upto], kept[:upto], strict=True)}
        of = {"head": "logits"} | {part.name: "generator" for part in parts if part.group in ("generator", "connector")}
        sums = {"activations": passing, "logits": 0.0, "generator": 0.0}
        for name, value in named.items():
            sums[of.get(name, "activations")] += value
        return Memory(weights, optimizer / shards, gradients, copies, **sums, autoencoder=encoding)

    def _adapters(self, stage: Stage) -> dict[str, int]:
        """Parameters of the low-rank adapters that learn in place of a group: rank x (in + out) for each layer."""
        if stage.lora is None:
            return {}
        found = dict.fromkeys(stage.lora.layers, 0)
        for name, group in self._group_of.items():
            layer, shape = name.split(".")[-2], self._shapes[name]
            if len(shape) == 2 and layer in stage.lora.layers.get(group, ()):
                found[group] += stage.lora.rank * sum(shape)
        return found

    def _gathered(self, parts: Sequence[Part], learns: Iterable[str]) -> int:
        """What lies whole on a process that holds a share of the weights (`training/parallel.py`): all but the
        decoder's layers and the gradients of it, and two of those layers, with one's gradients in float32."""
        whole = [part for part in parts if not part.name.startswith("decoder")]
        layer = max(part.parameters for part in parts if part.name.startswith("decoder"))
        towers = sum(part.parameters for part in whole) + sum(p.parameters for p in whole if p.group in learns)
        return COPY * (towers + 2 * layer) + GRADIENT * layer

    def _input(self, part: Part, load: Load) -> float:
        if part.group == "generator":
            options = self.config.generator
            width = options.get("num_attention_heads", 1) * options.get("attention_head_dim", 1)
            return 4.0 * width * sum(h * w for h, w in load.latents)
        return 4.0 * (self.vision_width * sum(load.images) if part.group == "vision" else self.width * load.tokens)

    def _encoder(self, load: Load, half: bool) -> float:
        """Feature maps of the autoencoder's first stage, for all pictures of a size at once; nothing is kept."""
        if self.config.latents["kind"] != "dc_ae":
            return 0.0
        channels = self.config.latents["encoder_block_out_channels"][0]
        pixels = sum(h * w for h, w in load.latents) * self.factor**2
        return ENCODER_MAPS * channels * pixels * (2.0 if half else 4.0)

    # ---- operations ----

    def operations(self, stage: Stage, load: Load, precision: Precision = "bfloat16") -> dict[str, float]:
        """Of one forward and backward pass, by group; `latents` is the encoding of targets, which has no backward."""
        learns, through = set(stage.learning_rates), False
        found = dict.fromkeys(self.groups, 0.0)
        for part in self.parts(load, precision):
            times = 1.0 + (1.0 if through else 0.0) + (1.0 if part.group in learns else 0.0)
            found[part.group] += times * part.forward
            through = through or part.group in learns
        found["latents"] = self._encoding_work(load)
        return {group: work for group, work in found.items() if work}

    def _encoding_work(self, load: Load) -> float:
        """Convolutions of the encoder: 2 per weight and place; each stage has a quarter of the places of the last."""
        if self.config.latents["kind"] != "dc_ae":
            return 0.0
        cells = sum(h * w for h, w in load.latents)
        stages = len(self.config.latents["encoder_block_out_channels"])
        work = 0.0
        for name, shape in self._shapes.items():
            if ".vae.encoder." in name and len(shape) > 1:
                level = int(name.split("down_blocks.")[1].split(".")[0]) if "down_blocks." in name else stages - 1
                work += 2.0 * math.prod(shape) * cells * 4 ** (stages - 1 - level)
        return work


def _padded(conditions: Sequence[int]) -> int:
    """Condition tokens with the padding to the longest."""
    return len(conditions) * max(conditions, default=0)


def _is_table(name: str) -> bool:
    return ("embed" in name and "patch_embed" not in name and "time_embed" not in name) or "scale_shift_table" in name


def _number(name: str) -> int:
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits) if digits else -1


def _part_of(name: str) -> str | None:
    """The part that a parameter belongs to; None for the autoencoder's, which no backward pass meets."""
    words = name.split(".")
    if name.startswith("supervision.latents."):
        return None
    if name.startswith("supervision.connector."):
        return "connector"
    if name.startswith("supervision.generator."):
        blocks = "transformer_blocks"
        return f"sana{words[words.index(blocks) + 1]}" if blocks in words else "painter"
    if ".visual." in name:
        if ".merger." in name or ".deepstack_merger_list." in name:
            return "mergers"
        return f"vision{words[words.index('blocks') + 1]}" if "blocks" in words else "patches"
    if "layers" in words:
        return f"decoder{words[words.index('layers') + 1]}"
    return "head" if "lm_head" in name else "embedding"
