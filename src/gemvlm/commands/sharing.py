"""Commands that share a checkpoint: card, push."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from gemvlm.commands import Model

Repository = Annotated[Positional[str], arg(metavar="OWNER/NAME")]


def card(model: Model, *, write: bool = False) -> None:
    """Print the model card that a checkpoint's own description makes; a policy's too.

    Args:
        model: Checkpoint folder of a GEM or a policy, the name of a shipped model, or OWNER/NAME of a hub.
        write: Put it into the folder as README.md instead; one that a person wrote is left alone.
    """
    from gemvlm.inference.load import any_checkpoint_folder
    from gemvlm.recipes.model_card import model_card, write_model_card

    folder = any_checkpoint_folder(model)
    print(write_model_card(folder) if write else model_card(folder), end="\n" if write else "")


def push(
    model: Model,
    repository: Repository,
    *,
    message: str = "Weights, description and card",
    public: bool = False,
    revision: Annotated[str | None, arg(metavar="BRANCH")] = None,
) -> None:
    """Put a checkpoint on the Hugging Face hub: safetensors, JSON, the chat template, its card and its licence alone.

    Who you are is read from HF_TOKEN or from `hf auth login`. Then `gemvlm ask OWNER/NAME ...` and
    `gemvlm.load("OWNER/NAME")` find it. A card is written unless there is a README.md.

    Args:
        model: Checkpoint folder of a GEM or a policy, or the name of a shipped model.
        repository: On the hub; it is made if there is none.
        message: Of the commit.
        public: A new repository is seen by everybody; else by you alone.
        revision: Branch to put it on; the main one by default.
    """
    from gemvlm.inference.hub import check_repository, push_folder
    from gemvlm.inference.load import any_checkpoint_folder
    from gemvlm.recipes.model_card import README, write_model_card

    check_repository(repository)  # before anything is written
    folder = any_checkpoint_folder(model)
    if not (folder / README).is_file():
        write_model_card(folder)
    pushed = push_folder(folder, repository, message=message, public=public, revision=revision)
    print(pushed.url)
    if pushed.left:
        print(f"left here: {', '.join(pushed.left)}")
