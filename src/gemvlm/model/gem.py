"""Gem: a Qwen3-VL that carries generative supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from gemvlm.batch import Batch
from gemvlm.flow import Steps
from gemvlm.model.backbone import Backbone, supervised_tokens, until_last_image
from gemvlm.model.config import GemConfig
from gemvlm.model.learner import Learner
from gemvlm.model.supervision import GenerativeSupervision

PRIOR = "_prior"
"""`KIND_prior` is the loss of painting targets of that kind under the null condition: the backbone isn't run."""
DETACHED = "_detached"
"""`KIND_detached` is the loss of targets of that kind whose gradient stops before the backbone: a control."""


def target_kind(loss: str) -> str:
    """The kind of target that a loss of `Gem` needs; "text" needs none."""
    return loss.removesuffix(PRIOR).removesuffix(DETACHED)


class Gem(Learner):
    """A backbone and the supervision it carries, built from `config` with random weights.

    Weights are drawn as their libraries draw them, Sana's last projection included. Stock Qwen3-VL draws with a spread
    of 0.02, little for narrow models: `initializer_range` in the text and vision configuration says otherwise.
    """

    config: GemConfig
    supervision: GenerativeSupervision

    def __init__(self, config: GemConfig):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.supervision = GenerativeSupervision.build(
            self.backbone.width,
            config.generator,
            config.latents,
            shift=config.shift,
            condition_dropout=config.condition_dropout,
            training_steps=config.training_steps,
        )

    def forward(self, batch: Batch, losses: Sequence[str] = ("text", "depth")) -> dict[str, Tensor]:
        """The named losses of a batch, computing only what they need.

        "text" is the cross entropy of the supervised tokens; any other name is a kind of target, or a kind with the
        suffix "_prior" or "_detached". A loss with nothing to average is left out.
        """
        seen = [target for target in batch.targets if target.kind in losses]
        detached = [target for target in batch.targets if target.kind + DETACHED in losses]
        found: dict[str, Tensor] = {}
        with_text = "text" in losses and len(supervised_tokens(batch)) > 0
        if with_text or seen or detached:
            read = batch if with_text else until_last_image(batch)
            states = self.backbone(read).states
            if with_text:
                found["text"] = self.backbone.text_loss(states, read)
            grids = self.token_grids(read)
            found |= self.supervision(states, read.spans, grids, seen)
            apart = self.supervision(states.detach(), read.spans, grids, detached)
            found |= {kind + DETACHED: loss for kind, loss in apart.items()}
        priors = [target for target in batch.targets if target.kind + PRIOR in losses]
        found |= {kind + PRIOR: loss for kind, loss in self.supervision.prior(priors).items()}
        return {name: found[name] for name in losses if name in found}

    def checkpoint_activations(self, on: bool = True) -> None:
        """Less memory for about a third more work: the inputs of repeated blocks are kept, all else is recomputed."""
        self.backbone.checkpoint_activations(on)
        self.supervision.generator.checkpoint_activations(on)

    def token_grids(self, batch: Batch) -> Int64[Tensor, "N 2"]:
        """Rows and columns of language model tokens of each image."""
        return batch.image_grid_thw[:, 1:] // self.backbone.merge

    @torch.no_grad()
    def paint(
        self,
        batch: Batch,
        height: int,
        width: int,
        *,
        steps: int | Steps,
        guidance: float,
        seed: int = 0,
        keys: Sequence[int] | None = None,
        condition_on: Sequence[int] | None = None,
        unconditional: bool = False,
    ) -> Float[Tensor, "M 3 h w"]:
        """`GenerativeSupervision.sample` from this batch's images. ValueError if the batch has none."""
        if not len(batch.spans):
            raise ValueError(
                f"nothing to paint: none of the {len(batch.lengths)} samples of the batch has an image; "
                "give at least one sample with an image"
            )
        read = until_last_image(batch)
        return self.supervision.sample(
            self.backbone(read).states,
            read.spans,
            self.token_grids(read),
            height,
            width,
            steps=steps,
            guidance=guidance,
            seed=seed,
            keys=keys,
            condition_on=condition_on,
            unconditional=unconditional,
        )

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """Named parameters by the module group that a stage trains or freezes. "latents" are never trained.

        "merger" holds the merger and the DeepStack mergers alike (B11: the release's switch missed the latter).
        """
        groups: dict[str, dict[str, nn.Parameter]] = {name: {} for name in GROUPS}
        for name, parameter in self.named_parameters():
            groups[group_of(name)][name] = parameter
        return groups


GROUPS = ("vision", "merger", "language", "connector", "generator", "latents")


def group_of(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "supervision":
        return rest.split(".")[0]
    if ".visual." not in name:
        return "language"
    return "merger" if ".merger." in name or ".deepstack_merger_list." in name else "vision"
