"""A stock Qwen3-VL over packed batches: its states, the inputs of its layers, its keys and values, its text loss.

Three things are pinned here, and by tests, because transformers versions disagree about them: `states` are after the
final norm; the input of decoder layer i contains the DeepStack addition; keys are as the attention uses them, after
norm and rotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.modeling_layers import GradientCheckpointingLayer

from gemvlm.batch import IGNORE, Batch
from gemvlm.model import attention
from gemvlm.model.attention import Decoding, Packing

LARGEST_LOGITS = 2**26
"""Logits (tokens x vocabulary) held at once; more are computed in chunks and recomputed in the backward pass."""


@dataclass(frozen=True)
class BackboneOutput:
    """States on the packed token axis.

    `states` (T, D) are after the final norm, None if the run stopped before the last layer. `layer_inputs[i]` (T, D) is
    what decoder layer i receives, DeepStack included; index `depth` is what the final norm receives. `keys_values[i]`
    are (T, kv heads, head size) each.
    """

    states: Float[Tensor, "T D"] | None
    layer_inputs: Mapping[int, Float[Tensor, "T D"]] = field(default_factory=dict)
    keys_values: tuple[tuple[Float[Tensor, "T kv d"], Float[Tensor, "T kv d"]], ...] = ()


class _Recorder:
    """A cache that remembers what passes and changes nothing."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        self.layers.append((keys[0].transpose(0, 1), values[0].transpose(0, 1)))
        return keys, values


class _Cache:
    """Keys and values of each sample as right-padded rows with room for the tokens to come."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], lengths: list[int], room: int):
        self.rows = torch.arange(len(lengths), device=layers[0][0].device)
        self.place = torch.tensor(lengths, device=self.rows.device)
        self.longest = max(lengths)
        self.layers = [(self._pad(keys, lengths, room), self._pad(values, lengths, room)) for keys, values in layers]

    @staticmethod
    def _pad(packed: Tensor, lengths: list[int], room: int) -> Tensor:
        rows = nn.utils.rnn.pad_sequence(packed.split(lengths), batch_first=True)
        return F.pad(rows, (0, 0, 0, 0, 0, room)).transpose(1, 2)

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        for rows, new in zip(self.layers[layer], (keys, values), strict=True):
            rows[self.rows, :, self.place] = new[0].transpose(0, 1).to(rows.dtype)
        stored_keys, stored_values = self.layers[layer]
        return stored_keys[:, :, : self.longest + 1], stored_values[:, :, : self.longest + 1]

    def advance(self) -> None:
        """To be called once all layers have stored the new token."""
        self.place = self.place + 1
        self.longest += 1


class _PatchEmbed(nn.Module):
    """The stock convolution, whose strides are its kernel, as the product that it is: thrice as fast on a CPU."""

    def __init__(self, proj: nn.Conv3d):
        super().__init__()
        self.proj = proj

    def forward(self, pixels: Float[Tensor, "patches values"]) -> Float[Tensor, "patches width"]:
        weight = self.proj.weight
        return F.linear(pixels.to(weight.dtype), weight.flatten(1), self.proj.bias)


class Backbone(nn.Module):
    """Holds `qwen`, a stock Qwen3VLForConditionalGeneration built from the keyword arguments of its configuration."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.qwen = Qwen3VLForConditionalGeneration._from_config(
            Qwen3VLConfig(**config), attn_implementation=attention.NAME
        )
        visual = self.qwen.model.visual
        visual.patch_embed = _PatchEmbed(visual.patch_embed.proj)
        self.merge = self.qwen.config.vision_config.spatial_merge_size

    @property
    def width(self) -> int:
        """D, the width of the language model's states."""
        return self.qwen.config.text_config.hidden_size

    @property
    def depth(self) -> int:
        return self.qwen.config.text_config.num_hidden_layers

    def checkpoint_activations(self, on: bool = True) -> None:
        """In training, keep only the inputs of decoder layers and vision blocks, and recompute the rest backwards."""
        for module in self.qwen.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.gradient_checkpointing = on
                module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)  # type: ignore[assignment]

    def forward(
        self,
        batch: Batch,
        *,
        layer_inputs: Sequence[int] = (),
        keys_values: bool = False,
        stop_after: int | None = None,
    ) -> BackboneOutput:
        """Runs the decoder's first `stop_after` layers (all by default) over the packed tokens."""
        depth = self.depth if stop_after is None else stop_after
        beyond = [i for i in layer_inputs if not 0 <= i <= depth]
        if beyond or not 0 < depth <= self.depth:
            raise ValueError(
                f"layer inputs {beyond} with stop_after={stop_after}: the backbone has {self.depth} layers"
            )
        if keys_values and self.training and self.qwen.model.language_model.layers[0].gradient_checkpointing:
            raise ValueError("keys and values are not recorded where activations are recomputed; call eval() before")
        recorder = _Recorder() if keys_values else None
        packing = Packing(batch.lengths.tolist(), causal=True, device=batch.input_ids.device)
        embeds, deepstack = self._embed(batch)
        recorded, hidden = self._decode(
            embeds, batch.position_ids, packing, recorder, deepstack, tuple(layer_inputs), depth
        )
        states = self.qwen.model.language_model.norm(hidden) if depth == self.depth else None
        return BackboneOutput(states, recorded, tuple(recorder.layers) if recorder else ())

    def _embed(self, batch: Batch) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Token embeddings (T, D) with the image features in place, and what DeepStack adds after the first layers."""
        embeds = self.qwen.model.language_model.embed_tokens(batch.input_ids)
        if not len(batch.image_grid_thw):
            return embeds, []
        visual, grid = self.qwen.model.visual, batch.image_grid_thw
        # As in the stock code, the frames of a grid with several don't see each other.
        lengths = (grid[:, 1] * grid[:, 2]).repeat_interleave(grid[:, 0]).tolist()
        vision = visual(
            batch.pixel_values.to(visual.dtype),
            grid_thw=grid,
            # One chunk for the stock code: who attends to whom is said by the packing.
            cu_seqlens=torch.tensor([0, sum(lengths)], dtype=torch.int32, device=grid.device),
            packing=Packing(lengths, causal=False, device=grid.device),
        )
        places = span_tokens(batch.spans, sum(lengths) // self.merge**2)
        embeds = embeds.index_copy(0, places, vision.pooler_output.to(embeds.dtype))
        return embeds, [(places, features) for features in vision.deepstack_features]

    def _decode(
        self,
        hidden: Tensor,
        position_ids: Tensor,
        packing: Packing | Decoding,
        cache: _Recorder | _Cache | None,
        deepstack: Sequence[tuple[Tensor, Tensor]],
        wanted: Sequence[int],
        depth: int,
    ) -> tuple[dict[int, Tensor], Tensor]:
        """The decoder layers over (T, D) hidden states; returns the wanted layer inputs and the last layer's output."""
        decoder = self.qwen.model.language_model
        rotation = decoder.rotary_emb(hidden[None], position_ids[:, None])
        recorded = {}
        for i, layer in enumerate(decoder.layers[:depth]):
            if i in wanted:
                recorded[i] = hidden
            hidden = layer(
                hidden[None], position_embeddings=rotation, attention_mask=None, past_key_values=cache, packing=packing
            )[0]
            if i < len(deepstack):
                places, features = deepstack[i]
                hidden = hidden.index_add(0, places, features.to(hidden.dtype))
        if depth in wanted:
            recorded[depth] = hidden
        return recorded, hidden

    def logits(self, states: Float[Tensor, "n D"]) -> Float[Tensor, "n vocabulary"]:
        """The language head at these states and nowhere else."""
        return self.qwen.lm_head(states)

    def text_loss(self, states: Float[Tensor, "T D"], batch: Batch) -> Float[Tensor, ""]:
        """Mean cross entropy over supervised tokens, in float32; without any, an exact zero that reaches the head."""
        tokens = supervised_tokens(batch)
        before, labels = states[tokens - 1], batch.labels[tokens]
        chunk = max(1, LARGEST_LOGITS // self.qwen.config.text_config.vocab_size)
        if len(tokens) <= chunk:
            total = self._cross_entropy(before, labels)
        else:
            pieces = zip(before.split(chunk), labels.split(chunk), strict=True)
            total = sum(checkpoint(self._cross_entropy, *piece, use_reentrant=False) for piece in pieces)
        return total / max(len(tokens), 1)

    def _cross_entropy(self, states: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(states).float(), labels, reduction="sum")

    @torch.no_grad()
    def generate(
        self,
        batch: Batch,
        max_new_tokens: int,
        eos_ids: Sequence[int],
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> list[Int64[Tensor, "new"]]:
        """Continues every sample of `batch`: greedy at temperature 0, else sampled with `generator`.

        Returns, per sample, the new tokens without the end token; equal to continuing each sample alone.
        """
        stop = torch.tensor(list(eos_ids), dtype=torch.int64, device=batch.input_ids.device)
        done, tokens = torch.zeros_like(batch.lengths, dtype=torch.bool), []
        for token in self.next_tokens(batch, max_new_tokens, temperature, generator):
            tokens.append(token)
            done |= torch.isin(token, stop)
            if bool(done.all()):
                break
        if not tokens:
            return [batch.input_ids.new_empty(0)] * len(done)
        return [_until(row, stop) for row in torch.stack(tokens, dim=1)]

    @torch.no_grad()
    def next_tokens(
        self, batch: Batch, max_new_tokens: int, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Iterator[Int64[Tensor, "S"]]:
        """The next token of every sample, again and again; a token is computed once it is asked for.

        End tokens mean nothing here: whoever reads stops by closing the iterator.
        """
        lengths = batch.lengths.tolist()
        out = self(batch, keys_values=True)
        cache = _Cache(out.keys_values, lengths, max_new_tokens)
        next_position = torch.stack([part.max() + 1 for part in batch.position_ids.split(lengths, dim=1)])
        states = out.states[batch.lengths.cumsum(0) - 1]
        del out
        for left in reversed(range(max_new_tokens)):
            token = _choose(self.logits(states).float(), temperature, generator)
            yield token
            if not left:
                return
            embeds = self.qwen.model.language_model.embed_tokens(token)
            decoding = Decoding(cache.place + 1)
            _, hidden = self._decode(embeds, next_position.expand(3, -1), decoding, cache, (), (), self.depth)
            states = self.qwen.model.language_model.norm(hidden)
            cache.advance()
            next_position = next_position + 1


def _choose(
    logits: Float[Tensor, "S vocabulary"], temperature: float, generator: torch.Generator | None
) -> Int64[Tensor, "S"]:
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


def _until(tokens: Int64[Tensor, "n"], stop: Int64[Tensor, "k"]) -> Int64[Tensor, "m"]:
    ends = torch.isin(tokens, stop).nonzero()
    return tokens[: int(ends[0])] if len(ends) else tokens


def supervised_tokens(batch: Batch) -> Int64[Tensor, "n"]:
    """Indices of the tokens that a loss supervises: labelled, and with a state before them in the same sample."""
    same = F.pad(batch.segment_ids[1:] == batch.segment_ids[:-1], (1, 0), value=False)
    return ((batch.labels != IGNORE) & same).nonzero()[:, 0]


def span_tokens(spans: Int64[Tensor, "N 2"], total: int) -> Int64[Tensor, "n"]:
    """The token indices of all spans, one span after another. ValueError unless they are `total` in number."""
    counts = spans[:, 1] - spans[:, 0]
    if int(counts.sum()) != total:
        raise ValueError(f"the {len(spans)} image spans hold {int(counts.sum())} tokens but the images have {total}")
    first = (spans[:, 0] - (counts.cumsum(0) - counts)).repeat_interleave(counts)
    return first + torch.arange(total, device=spans.device)


def until_last_image(batch: Batch) -> Batch:
    """The batch without what follows the last image of each sample.

    Attention is causal, so the states inside the image spans are the same. Samples without an image vanish. No labels
    are left.
    """
    segments = int(batch.segment_ids[-1]) + 1
    last = torch.zeros(segments, dtype=torch.int64, device=batch.spans.device)
    owner = batch.segment_ids[batch.spans[:, 0]]
    last = last.scatter_reduce(0, owner, batch.spans[:, 1], "amax", include_self=True)
    kept = torch.arange(len(batch.input_ids), device=last.device) < last[batch.segment_ids]
    new_index = kept.cumsum(0) - 1
    return Batch(
        input_ids=batch.input_ids[kept],
        segment_ids=batch.segment_ids[kept].unique_consecutive(return_inverse=True)[1],
        position_ids=batch.position_ids[:, kept],
        labels=torch.full_like(batch.labels[kept], IGNORE),
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        spans=torch.stack([new_index[batch.spans[:, 0]], new_index[batch.spans[:, 1] - 1] + 1], dim=1),
        targets=batch.targets,
        sample_ids=batch.sample_ids,
    )
