"""The authors' policy checkpoints → a `GemVla`, tensor by tensor.

Their names, and how ours (`weights.py`) call the same tensor:

    model.*, lang_adaptor.*, act_adaptor.*, state_adaptor.*      expert.* ; an expert saved alone
    rdt.*, vlm.*, depth_expert.*                                 expert.* and the rest; a DeepSpeed training's file
    generator.*, real_score.*                                    a distilled expert and its teacher, alone or in rdt.*

Sources: zhaorw02/GEM, GEM-VLA/models/rdt_runner.py, rdt_distill_runner.py and GEM-VLA/train at 5500948. Every tensor is
asked for or left out by name; nothing is skipped because it didn't match (A16). Their `.pt` files are pickles and
aren't opened: the refusal says how to convert one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from gemvlm.model.gem_vla import GemVla
from gemvlm.model.weights import BACKBONE, load_weights

Part = Literal["backbone", "supervision", "autoencoder", "expert"]
Role = Literal["student", "teacher"]

PARTS: dict[str, tuple[str, ...]] = {
    "backbone": BACKBONE,
    "supervision": ("diffusion_connector.", "sana.", "head."),
    "autoencoder": ("vae.",),
    "expert": ("expert.",),
}
"""What the names of each part begin with in our layout."""

ROLES: dict[Role, str] = {"student": "generator.", "teacher": "real_score."}
WRAPPERS = ("vlm.", "depth_expert.")
ADAPTORS = ("lang_adaptor.", "act_adaptor.", "state_adaptor.")
OF_BACKBONE = ("model.visual.", "model.language_model.")
PROJECTIONS = ("lang_adaptor.", "cond_norm.", "cross_attn.wkv.", "cross_attn.norm_k.")
"""Parts of a published expert that idle when it reads keys and values; ours doesn't have them then."""
PICKLES = (".pt", ".pth", ".bin", ".ckpt")


def load_published(policy: GemVla, folder: Path, parts: Sequence[Part], role: Role = "student") -> None:
    """Fills `parts` of a policy from a folder of safetensors that go by the authors' names; the rest stays as it is.

    A GEM or Qwen3-VL folder holds the "backbone", an expert's folder the "expert", a training's file both and, after
    joint training, the "supervision"; the frozen "autoencoder" is never in the last. Of a distilled expert `role` says
    which of the two networks is meant. ValueError for any tensor that is missing, unexpected or mis-shaped, for unknown
    parts, and for pickles.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts:
        raise ValueError(f"parts={list(parts)}: name some of {list(PARTS)}")
    _refuse_pickles(Path(folder))
    others = tuple(prefix for part, prefixes in PARTS.items() if part not in parts for prefix in prefixes)
    projects = policy.config.expert.conditioning == "layer_inputs"
    load_weights(policy, Path(folder), new=others, unused=others, rename=_renaming(role, projects))


def _renaming(role: Role, projects: bool) -> Callable[[str], str | None]:
    """Their name → ours, None for the other role's network and for projections that a reader of keys doesn't have."""
    own = ROLES[role]
    (other,) = set(ROLES.values()) - {own}

    def rename(name: str) -> str | None:
        for wrapper in WRAPPERS:
            if name.startswith(wrapper):
                return name.removeprefix(wrapper)
        bare = name.removeprefix("rdt.")
        if bare.startswith(other):
            return None
        inner = bare.removeprefix(own)
        theirs = inner.startswith(ADAPTORS) or (inner.startswith("model.") and not inner.startswith(OF_BACKBONE))
        if not theirs:
            return name
        idle = not projects and any(f".{part}" in f".{inner}" for part in PROJECTIONS)
        return None if idle else f"expert.{inner}"

    return rename


def _refuse_pickles(folder: Path) -> None:
    """ValueError where there is nothing but pickles, or a file in place of a folder."""
    if folder.suffix == ".safetensors":
        raise ValueError(f"{folder}: give the folder that holds it, with the file named model.safetensors")
    found = [folder] if folder.is_file() else sorted(folder.glob("*")) if folder.is_dir() else []
    if any(path.suffix == ".safetensors" or path.name.endswith(".index.json") for path in found):
        return
    pickles = [path for path in found if path.suffix in PICKLES]
    if pickles:
        raise ValueError(
            f'{pickles[0]}: a pickle, which could run anything when opened; convert it once: python -c "import torch; '
            f"from safetensors.torch import save_file; t = torch.load('{pickles[0].name}', weights_only=True); "
            "t = t.get('module', t); save_file({k: v.clone() for k, v in t.items()}, 'model.safetensors')\", and give "
            "the folder of model.safetensors"
        )
