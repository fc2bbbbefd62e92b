"""GemVla: a Qwen3-VL, an action expert that looks at its layers, and the generative supervision it may still carry.

The backbone runs once for all losses of a batch. For actions alone it stops after the last layer that the expert looks
at, and computes no logits (B1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor, nn

from gemvlm.batch import IGNORE, Actions, Batch
from gemvlm.flow import interpolate, logit_normal, uniform_times, velocity
from gemvlm.model.action_expert import ActionExpert, Context, Observed
from gemvlm.model.backbone import Backbone, BackboneOutput, supervised_tokens, until_last_image
from gemvlm.model.committed import padded_prefix
from gemvlm.model.expert_config import ExpertConfig
from gemvlm.model.gem import GROUPS as GEM_GROUPS
from gemvlm.model.gem import group_of
from gemvlm.model.gem_vla_config import GemVlaConfig, SupervisionConfig
from gemvlm.model.generator import Draw
from gemvlm.model.learner import Learner
from gemvlm.model.supervision import GenerativeSupervision

__all__ = ["GROUPS", "GemVla", "GemVlaConfig", "SupervisionConfig", "robots", "visible_rows"]

GROUPS = (*GEM_GROUPS, "expert")


class GemVla(Learner):
    """Built from `config` with random weights. ValueError if the expert can't look at this backbone."""

    def __init__(self, config: GemVlaConfig):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        _check_fit(config.expert, self.backbone)
        self.supervision = None if config.supervision is None else _supervision(config.supervision, self.backbone)
        self.expert = ActionExpert(config.expert, self.backbone.width)

    def forward(self, batch: Batch, losses: Sequence[str] = ("action", "text", "depth")) -> dict[str, Tensor]:
        """The named losses of a batch, from one run of the backbone.

        "action" is the mean squared error of the flow's velocity over the valid steps of all chunks, "text" the cross
        entropy of the supervised tokens, any other name a kind of target. A loss with nothing to average is left out.
        """
        kinds = [name for name in losses if name not in ("action", "text")]
        targets = [target for target in batch.targets if target.kind in kinds]
        if targets and self.supervision is None:
            raise ValueError(
                f"losses {kinds} ask for painted targets, but this policy carries no supervision; "
                "give GemVlaConfig.supervision, or leave these losses out"
            )
        with_text = "text" in losses and len(supervised_tokens(batch)) > 0
        actions = batch.actions if "action" in losses and batch.actions is not None else None
        if actions is not None and not bool(actions.valid.any()):
            actions = None
        if not (with_text or targets or actions is not None):
            return {}
        read = batch if with_text or actions is not None else until_last_image(batch)
        out = self._run(read, with_states=with_text or bool(targets), with_context=actions is not None)
        found: dict[str, Tensor] = {}
        if out.states is not None and with_text:
            found["text"] = self.backbone.text_loss(out.states, read)
        if out.states is not None and self.supervision is not None:
            grids = read.image_grid_thw[:, 1:] // self.backbone.merge
            found |= self.supervision(out.states, read.spans, grids, targets)
        if actions is not None:
            found["action"] = self.action_loss(self._context(out, read, actions), actions)
        return {name: found[name] for name in losses if name in found}

    def _run(self, batch: Batch, with_states: bool, with_context: bool) -> BackboneOutput:
        """The backbone as far as needed; without a graph where no gradient may enter it."""
        expert = self.config.expert
        by_layer = expert.conditioning == "layer_inputs"
        last = max(expert.layers) if by_layer else max(expert.layers) + 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and (with_states or self.config.backbone_gradient > 0)):
            return self.backbone(
                batch,
                layer_inputs=expert.layers if with_context and by_layer else (),
                keys_values=with_context and not by_layer,
                stop_after=None if with_states else max(1, last),
            )

    def _context(self, out: BackboneOutput, batch: Batch, actions: Actions) -> Context:
        """What the expert sees of each robot sample, in rows; gradients into the backbone are scaled here."""
        rows, mask = visible_rows(batch, actions.samples)
        factor = self.config.backbone_gradient

        def seen(tensor: Tensor) -> Tensor:
            return (_ScaledGradient.apply(tensor, factor) if factor else tensor.detach())[rows]

        layers = self.config.expert.layers
        if self.config.expert.conditioning == "layer_inputs":
            return Context(states=tuple(seen(out.layer_inputs[i]) for i in layers), mask=mask)
        pairs = (out.keys_values[i] for i in layers)
        return Context(
            keys_values=tuple((seen(k).transpose(1, 2), seen(v).transpose(1, 2)) for k, v in pairs), mask=mask
        )

    def action_loss(self, context: Context, actions: Actions) -> Float32[Tensor, ""]:
        """Mean over valid steps and their numbers of (velocity − (chunk − noise))², in float32 throughout (B2, B8).

        Noise, logit-normal time and dropout of each chunk are drawn from its key.
        """
        times, shape = self.config.draws, actions.chunk.shape[1:]
        draws = [Draw.of(key + i) for key in actions.keys for i in range(times)]
        device, chunk = actions.chunk.device, actions.chunk.repeat_interleave(times, 0)
        noise = torch.stack([draw.noise(shape) for draw in draws]).to(device)
        time = logit_normal(torch.tensor([draw.time for draw in draws])).to(device)
        if self.training and self.config.condition_dropout:
            # One choice for each observation, by its first draw.
            kept = [draw.dropout >= self.config.condition_dropout for draw in draws[::times]]
            context = _shown(context, torch.tensor(kept, device=device))
        observed = self.expert.observe(context, actions.state).repeated(times)
        predicted = self.expert.velocity(interpolate(noise, chunk, time), time, observed)
        error = (predicted - velocity(noise, chunk)).square().mean(-1)
        valid = actions.valid.repeat_interleave(times, 0)
        return (error * valid).sum() / valid.sum()

    def context(self, batch: Batch) -> Context:
        """What the expert sees of the robot samples of a batch. ValueError if it has none."""
        return self._context(self._run(batch, with_states=False, with_context=True), batch, robots(batch))

    def observe(self, batch: Batch) -> Observed:
        """What the flow needs of the robot samples of a batch. ValueError if it has none."""
        return self.expert.observe(self.context(batch), robots(batch).state)

    @torch.no_grad()
    def act(
        self,
        batch: Batch,
        steps: int | Sequence[float],
        *,
        guidance: float = 1.0,
        committed: Float32[Tensor, "R K action"] | None = None,
        committed_weights: Float32[Tensor, "R K"] | None = None,
    ) -> Float32[Tensor, "R H action"]:
        """A normalised chunk for each robot sample, from the noise of its key.

        `steps` is a number of equal Euler steps, or the times from 0 to 1 themselves. `guidance` other than 1 needs
        weights trained with `condition_dropout`. `committed` are actions that the chunk must begin with, because they
        will have been executed before it arrives; `committed_weights` below 1 let it depart, 0
        ignores.
        """
        actions, context = robots(batch), self.context(batch)
        observed = self.expert.observe(context, actions.state)
        config = self.config.expert
        noise = torch.stack([Draw.of(key).noise((config.horizon, config.action)) for key in actions.keys])
        times = uniform_times(steps) if isinstance(steps, int) else torch.tensor(list(steps), dtype=torch.float64)
        known, weight = padded_prefix(committed, committed_weights, (len(noise), config.horizon, config.action))
        return self.expert.sample(
            observed,
            noise.to(observed.state.device),
            times,
            unseen=None if guidance == 1 else self._unseen(context, actions),
            guidance=guidance,
            known=known,
            known_weight=weight,
        )

    def _unseen(self, context: Context, actions: Actions) -> Observed:
        nothing = torch.zeros_like(actions.samples, dtype=torch.bool)
        return self.expert.observe(_shown(context, nothing), actions.state)

    def checkpoint_activations(self, on: bool = True) -> None:
        """Less memory for about a third more work: the inputs of repeated blocks are kept, all else is recomputed."""
        self.backbone.checkpoint_activations(on)
        self.expert.checkpoint_activations(on)
        if self.supervision is not None:
            self.supervision.generator.checkpoint_activations(on)

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """Named parameters by the module group that a stage trains or freezes: Gem's groups, and "expert"."""
        groups: dict[str, dict[str, nn.Parameter]] = {name: {} for name in GROUPS}
        for name, parameter in self.named_parameters():
            groups["expert" if name.startswith("expert.") else group_of(name)][name] = parameter
        return groups


def visible_rows(batch: Batch, samples: Int64[Tensor, "R"]) -> tuple[Int64[Tensor, "R L"], Bool[Tensor, "R L"] | None]:
    """The tokens of each robot sample that an expert may see, as right-padded rows; the mask is None if none is padded.

    All of a sample up to its first labelled token after its last image: an answer isn't there when robots act.
    """
    lengths, tokens = batch.lengths, torch.arange(len(batch.input_ids), device=batch.input_ids.device)
    starts = lengths.cumsum(0) - lengths
    after_images = starts.clone()
    if len(batch.spans):
        owner = batch.segment_ids[batch.spans[:, 0]]
        after_images = after_images.scatter_reduce(0, owner, batch.spans[:, 1], "amax")
    labelled = (batch.labels != IGNORE) & (tokens >= after_images[batch.segment_ids])
    ends = (starts + lengths).scatter_reduce(0, batch.segment_ids[labelled], tokens[labelled], "amin")
    starts, lengths = starts[samples], (ends - starts)[samples]
    column = torch.arange(int(lengths.max()), device=tokens.device)
    real = column < lengths[:, None]
    rows = starts[:, None] + torch.minimum(column, lengths[:, None] - 1)
    return rows, None if bool(real.all()) else real


def _shown(context: Context, kept: Bool[Tensor, "R"]) -> Context:
    """The same places, with zeros for observations that aren't kept."""

    def shown(tensor: Tensor) -> Tensor:
        return tensor * kept.reshape(-1, *[1] * (tensor.ndim - 1)).to(tensor.dtype)

    pairs = tuple((shown(keys), shown(values)) for keys, values in context.keys_values)
    return Context(tuple(map(shown, context.states)), pairs, context.mask)


class _ScaledGradient(torch.autograd.Function):
    """The tensor itself; its gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def robots(batch: Batch) -> Actions:
    """The actions of a batch. ValueError if none of its samples is a robot's."""
    if batch.actions is None or not len(batch.actions.samples):
        raise ValueError(
            f"nothing to act for: none of the {len(batch.lengths)} samples of the batch is a robot's; "
            "give the batch actions (their chunk may be zero)"
        )
    return batch.actions


def _supervision(config: SupervisionConfig, backbone: Backbone) -> GenerativeSupervision:
    return GenerativeSupervision.build(
        backbone.width,
        config.generator,
        config.latents,
        shift=config.shift,
        condition_dropout=config.condition_dropout,
        training_steps=config.training_steps,
    )


def _check_fit(expert: ExpertConfig, backbone: Backbone) -> None:
    text = backbone.qwen.config.text_config
    by_layer = expert.conditioning == "layer_inputs"
    last = backbone.depth if by_layer else backbone.depth - 1
    if max(expert.layers) > last:
        raise ValueError(
            f"expert.layers={expert.layers}: the backbone has {backbone.depth} layers, so that {expert.conditioning} "
            f"go up to {last}"
        )
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if not by_layer and (expert.kv_heads, expert.head_size) != (text.num_key_value_heads, size):
        raise ValueError(
            f"expert.kv_heads={expert.kv_heads} of size {expert.head_size} can't read the backbone's keys and values: "
            f"num_key_value_heads={text.num_key_value_heads} of head_dim={size}; make them equal (size is "
            "expert.width / expert.heads), or choose conditioning='layer_inputs'"
        )
