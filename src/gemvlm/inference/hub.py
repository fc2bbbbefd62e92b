"""A name on the Hugging Face hub ⇄ a folder here: safetensors and JSON alone, nothing that could run.

The token is the hub client's own affair: it reads HF_TOKEN, or what `hf auth login` keeps. It is no option, no field,
and taken out of every message.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gemvlm.model.card import CARD_FILE

HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?")
TAKEN = ("*.safetensors", "*.json", "*.jinja")
WEIGHTS = re.compile(r"(model(-\d+-of-\d+)?|adapter_model)\.safetensors")
DESCRIPTIONS = frozenset(
    {
        "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE",
        "gem.json", "gem_vla.json", "config.json", "generation_config.json", "adapter_config.json",
        "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json",
        "processor_config.json",
    }
)  # fmt: skip
"""What is published beside weights, by name: any other file in a folder may be nobody's business."""


@dataclass(frozen=True)
class Pushed:
    """Where a checkpoint now is, and the names of what was not sent."""

    url: str
    left: tuple[str, ...]


def is_hub_name(name: str) -> bool:
    """ "owner/model" or "owner/model@revision"."""
    return HUB_NAME.fullmatch(name) is not None


def named_folder(name: str | os.PathLike[str], *cards: str) -> Path:
    """The folder of that name here or, where there is none and the name could be a hub's, what is fetched from there.

    A folder here comes first. The folder need not exist: who asked knows what to say then.
    """
    folder = Path(name)
    if isinstance(name, str) and is_hub_name(name) and not folder.exists():
        return hub_folder(name, *cards)
    return folder


def hub_folder(name: str, *cards: str) -> Path:
    """The checkpoint's files, fetched unless they are in the hub's cache. ValueError says why it can't be had.

    It must hold one of `cards`, the files that describe a GEM (the default) or a policy.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    parts = HUB_NAME.fullmatch(name)
    assert parts is not None
    repository, revision = parts["repository"], parts["revision"]
    cards = cards or (CARD_FILE,)
    try:
        for card in cards:  # what is no checkpoint of ours is not fetched whole
            try:
                hf_hub_download(repository, card, revision=revision)
                break
            except EntryNotFoundError:
                if card == cards[-1]:
                    raise
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(TAKEN)))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}: no such folder here, and as a model of the Hugging Face hub it can't be had ({_reason(error)}); "
            f"check the name, the network and HF_TOKEN, and that the repository holds {' or '.join(cards)}"
        ) from error


def check_repository(name: str) -> None:
    """ValueError unless it is "owner/model" without a revision."""
    parts = HUB_NAME.fullmatch(name)
    if parts is None or parts["revision"]:
        raise ValueError(f"{name!r} is no repository: write OWNER/NAME, and the branch as an option")


def push_folder(
    folder: Path, repository: str, *, message: str, public: bool = False, revision: str | None = None
) -> Pushed:
    """Puts a checkpoint's weights, descriptions, card and licence on the hub, in one commit; makes the repository.

    Only `WEIGHTS` and `DESCRIPTIONS` directly in `folder` are sent: no optimiser, no log, nothing in folders.
    `revision` is a branch, made if there is none. ValueError for a name that is none, for a folder without weights or
    card, and for whatever the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    check_repository(repository)
    there = sorted(path.name for path in folder.iterdir())
    sent = [name for name in there if (name in DESCRIPTIONS or WEIGHTS.fullmatch(name)) and (folder / name).is_file()]
    if "README.md" not in sent or not any(WEIGHTS.fullmatch(name) for name in sent):
        raise ValueError(f"{folder}: weights or README.md missing; give a whole checkpoint and write its card first")
    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, revision=revision, allow_patterns=sent
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{repository}: the Hugging Face hub did not take {folder} ({_reason(error)}); log in with `hf auth login` "
            "or set HF_TOKEN to a token that may write there, and check the name and the network"
        ) from None
    return Pushed(str(done.commit_url), tuple(name for name in there if name not in sent))


def _reason(error: Exception) -> str:
    """The first line of what went wrong, without the token should the client have written it."""
    from huggingface_hub import get_token

    lines = str(error).strip().splitlines()
    token = get_token()
    return (lines[0].replace(token, "***") if token else lines[0]) if lines else type(error).__name__
