"""A name on the Hugging Face hub → a folder here: safetensors and JSON alone, nothing that could run."""

from __future__ import annotations

import re
from pathlib import Path

from gemvlm.model.card import CARD_FILE

HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?")
TAKEN = ("*.safetensors", "*.json", "*.jinja")


def is_hub_name(name: str) -> bool:
    """ "owner/model" or "owner/model@revision"."""
    return HUB_NAME.fullmatch(name) is not None


def hub_folder(name: str) -> Path:
    """The checkpoint's files, fetched unless they are in the hub's cache. ValueError says why it can't be had."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    parts = HUB_NAME.fullmatch(name)
    assert parts is not None
    repository, revision = parts["repository"], parts["revision"]
    try:
        hf_hub_download(repository, CARD_FILE, revision=revision)  # what is no checkpoint of ours is not fetched whole
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(TAKEN)))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{name}: no such folder here, and as a model of the Hugging Face hub it can't be had ({reason}); check "
            f"the name, the network and HF_TOKEN, and that the repository holds {CARD_FILE}"
        ) from error
