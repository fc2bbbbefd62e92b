"""Generative supervision on a stock Hugging Face vision-language model, and off it again.

The model keeps its class, its forward and its weights. Three hooks do the work: one takes `targets` out of the
forward's arguments, one reads the last hidden state that the model's own head reads (after the final norm, whatever the
version of transformers; the last of `output_hidden_states` is not always that, and it keeps every layer's), one adds
the weighted losses to `.loss`. No logits are computed for it. The supervision is a submodule: optimisers, devices and
DDP see its parameters; it is left out of what `save_pretrained` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import ModelOutput

from gemvlm.batch import Target
from gemvlm.model.spans import Decoder, SpanFinder, finder_of
from gemvlm.model.supervision import GenerativeSupervision

NAME = "generative_supervision"
"""The submodule's name in the model."""
FILE = f"{NAME}.safetensors"

WEIGHTS = {"depth": 0.1}
"""Weight of each kind's loss beside the model's own. [paper]"""

CHANGED = ("accepts_loss_kwargs", "_keys_to_ignore_on_save")
"""Attributes of a transformers model that are set while it carries a supervision."""


def attach(
    model: nn.Module,
    supervision: GenerativeSupervision,
    *,
    weights: Mapping[str, float] = WEIGHTS,
    tokenizer: Decoder | None = None,
    finder: SpanFinder | None = None,
) -> Attachment:
    """Lets `model` carry `supervision`: its forward then takes `targets`, and its loss has them in it.

    `model` is any PreTrainedModel with image tokens in its ids, or a PeftModel of one (attach after `get_peft_model`,
    which freezes what it finds). `targets` is a sequence of `Target`, each with the index of its image among all images
    of the batch, in the order of the ids; images without a target are fine. `weights` maps kinds of targets to weights.
    `finder` is `finder_of(model.config, tokenizer)` unless given. ValueError if the model has one already, or if the
    connector is not as wide as the model.
    """
    stock: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    if not isinstance(stock, PreTrainedModel):
        raise ValueError(
            f"{type(stock).__name__} is no transformers model; use GenerativeSupervision in its own forward"
        )
    width = stock.config.get_text_config().hidden_size
    if hasattr(stock, NAME) or supervision.connector.width != width:
        raise ValueError(
            f"{type(stock).__name__}: states are {width} wide, the connector takes {supervision.connector.width}; "
            f"carries a supervision already: {hasattr(stock, NAME)}; detach it, or build one of that width"
        )
    return Attachment(stock, supervision, weights, finder or finder_of(stock.config, tokenizer))


class Attachment:
    """What `attach` returns. `losses` are those of the last forward, by kind, unweighted and detached, for the log.

    The noise of a target is drawn from its key and from how many training passes there have been: new at every visit,
    other on every rank if keys are, and the same again after `load`. In eval mode from the key alone.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        supervision: GenerativeSupervision,
        weights: Mapping[str, float],
        finder: SpanFinder,
    ) -> None:
        self.model, self.supervision, self.weights, self.finder = model, supervision, dict(weights), finder
        self.losses: dict[str, Tensor] = {}
        self.passes = 0
        self._pending: tuple[dict[str, Any], tuple[Target, ...]] | None = None
        self._total: Tensor | None = None
        self._before: dict[str, Any] = {name: model.__dict__[name] for name in CHANGED if name in model.__dict__}
        # Trainer then takes every loss as the mean of its micro-batch: else it would not divide ours by their number.
        model.accepts_loss_kwargs = False  # type: ignore[assignment]
        model.add_module(NAME, supervision.to(model.device).train(model.training))
        ignored = {f"{NAME}.{name}" for name in supervision.state_dict()}
        model._keys_to_ignore_on_save = ignored | set(model._keys_to_ignore_on_save or ())
        self._hooks = [
            model.register_forward_pre_hook(self._take, with_kwargs=True),
            model.base_model.register_forward_hook(self._read),
            model.register_forward_hook(self._add),
        ]

    def detach(self) -> GenerativeSupervision:
        """Gives the model back as it was, with the weights it has learned, and returns the supervision."""
        for hook in self._hooks:
            hook.remove()
        delattr(self.model, NAME)
        for name in CHANGED:
            self.model.__dict__.pop(name, None)
        self.model.__dict__.update(self._before)
        return self.supervision

    def save(self, folder: Path | str, *, write: bool = True) -> None:
        """Writes connector, generator and the count of passes to `folder`, to go on from there; undone by `load`.

        If they are sharded (FSDP2) every process must call this, and one of them with `write`.
        """
        tensors = {}
        for name, tensor in self._learned().items():
            gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if write:
                tensors[name] = gathered.detach().cpu().contiguous()
        if write:
            path = Path(folder) / FILE
            draft = path.with_suffix(".draft")
            save_file(tensors, draft, metadata={"passes": str(self.passes)})
            draft.replace(path)

    @torch.no_grad()
    def load(self, folder: Path | str) -> None:
        """ValueError unless the file in `folder` has exactly this supervision's tensors."""
        path, wanted = Path(folder) / FILE, self._learned()
        try:
            tensors, passes = load_file(path), _passes(path)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path}: not readable ({error}); give the folder that `save` wrote to") from None
        shapes = ({(name, tuple(tensor.shape)) for name, tensor in part.items()} for part in (tensors, wanted))
        if differ := sorted(set.symmetric_difference(*shapes)):
            raise ValueError(
                f"{path}: {len(differ)} tensors differ, {differ[:3]}; build the supervision that it was saved of"
            )
        for name, tensor in wanted.items():
            value = tensors[name].to(tensor.device, tensor.dtype)
            if isinstance(tensor, DTensor):
                value = distribute_tensor(value, tensor.device_mesh, tensor.placements)
            tensor.copy_(value)
        self.passes = passes

    def trainer_callback(self) -> TrainerCallback:
        """For `Trainer.add_callback`: keeps the supervision in the Trainer's checkpoints, and resumes it from there."""
        return _Checkpoints(self)

    def _learned(self) -> dict[str, Tensor]:
        """All tensors but those of the frozen latents."""
        return {name: t for name, t in self.supervision.state_dict().items() if not name.startswith("latents.")}

    def _take(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Before the model runs: keeps what the supervision needs of its arguments, and takes `targets` out of them."""
        inputs = {"input_ids": args[0] if args else None, **kwargs}
        targets = inputs.pop("targets", None)
        self.losses, self._total = {}, None
        learning = model.training and torch.is_grad_enabled()
        self.passes += learning
        self._pending = (inputs, tuple(targets or ())) if learning or targets else None
        return args, {name: value for name, value in kwargs.items() if name != "targets"}

    def _read(self, base: nn.Module, args: tuple, output: Any) -> None:
        """Inside the model's forward, under its autocast: the losses, from the states that its head reads next."""
        if self._pending is None:
            return
        (inputs, targets), self._pending = self._pending, None
        hidden = output[0]
        losses = self._losses(hidden, inputs, targets) if targets else {}
        self.losses = {kind: loss.detach() for kind, loss in losses.items()}
        # Without a target every parameter gets a zero gradient: ranks that reduce together must all have one.
        untouched = (0 * p.sum().float() for p in self.supervision.parameters() if p.requires_grad)
        terms = [self.weights[kind] * loss for kind, loss in losses.items()] or list(untouched)
        self._total = torch.stack(terms).sum() if terms else None

    def _losses(
        self, hidden: Float[Tensor, "B S D"], inputs: Mapping[str, Any], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        ids = inputs["input_ids"]
        if ids is None:
            raise ValueError("targets without input_ids: the images are found in the ids; give them, not inputs_embeds")
        tokens = self.finder.find(ids.to(hidden.device), inputs)
        for target in targets:
            if target.kind not in self.weights or not 0 <= target.image < len(tokens.spans):
                raise ValueError(
                    f"a target of kind {target.kind!r} for image {target.image}: the batch has {len(tokens.spans)} "
                    f"images, the weights are for {sorted(self.weights)}; `image` counts the images of the whole batch"
                )
        if self.supervision.training:
            targets = [replace(target, key=_visited(target.key, self.passes)) for target in targets]
        states = tokens.states(hidden).to(self.supervision.connector.enter.weight.dtype)
        return self.supervision(states, tokens.spans, tokens.grids, [target.to(hidden.device) for target in targets])

    def _add(self, model: nn.Module, args: tuple, output: Any) -> Any:
        """After the model ran: the same output, its loss with ours in it."""
        if self._total is None:
            return None
        total, self._total = self._total, None
        if not isinstance(output, ModelOutput) or not hasattr(output, "loss"):
            raise ValueError(f"{type(model).__name__} returned no output with a `loss`; call it with return_dict=True")
        loss = total if output.loss is None else output.loss + total.to(output.loss.device)
        return type(output)(**{**output, "loss": loss})


class _Checkpoints(TrainerCallback):
    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.attachment.save(self._folder(args, state), write=state.is_world_process_zero)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step:
            self.attachment.load(self._folder(args, state))

    @staticmethod
    def _folder(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _passes(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return int((file.metadata() or {})["passes"])


def _visited(key: int, visit: int) -> int:
    """A 63-bit key of (key, visit)."""
    return int.from_bytes(blake2b(f"{key} {visit}".encode(), digest_size=8).digest(), "big") >> 1
