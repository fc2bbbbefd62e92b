"""A checkpoint by its name on a hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemvlm.inference.hub import is_hub_name
from gemvlm.inference.load import checkpoint_folder, load
from gemvlm.inference.policy import policy_folder


@pytest.mark.parametrize("name", ["owner/model", "owner/model-1.0_b@main", "o.w/m@refs/pr/1"])
def test_names_of_a_hub(name: str) -> None:
    assert is_hub_name(name)


@pytest.mark.parametrize(
    "name", ["nano", "/abs/path", "a/b/c", "./model", "../model", "owner/", "owner/model@", "a b/c"]
)
def test_other_names(name: str) -> None:
    assert not is_hub_name(name)


def hub_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Makes every repository of the hub hold what `folder` holds; the list grows by what it is asked for."""
    import huggingface_hub

    asked: list[tuple[object, ...]] = []

    def hf_hub_download(repository: str, name: str, revision: str | None) -> str:
        asked.append((repository, name, revision))
        return str(folder / name)

    def snapshot_download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, *allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_safetensors_and_json_alone_are_fetched(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub_of(checkpoint, monkeypatch)
    assert load("someone/gem@v2", device="cpu").card.recipe == "tiny"
    assert asked[0] == ("someone/gem", "gem.json", "v2")
    assert asked[1] == ("someone/gem", "v2", "*.safetensors", "*.json", "*.jinja")


def test_a_policy_is_fetched_like_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gem_vla.json").write_text("{}")
    asked = hub_of(tmp_path, monkeypatch)
    assert policy_folder("someone/policy@v2") == tmp_path
    assert asked[0] == ("someone/policy", "gem_vla.json", "v2")
    assert asked[1] == ("someone/policy", "v2", "*.safetensors", "*.json", "*.jinja")
    assert policy_folder(tmp_path) == tmp_path and len(asked) == 2
    with pytest.raises(ValueError, match="or owner/policy of a hub"):
        policy_folder("no_policy_here")


def test_what_cannot_be_had_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, from an empty cache: the hub's own client refuses."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"nobody/nothing: no such folder here, .* can't be had \(.+\); check the name"
    ):
        checkpoint_folder("nobody/nothing")
    with pytest.raises(ValueError, match=r"nobody/nothing: no such folder here, .* holds gem_vla\.json"):
        policy_folder("nobody/nothing")


def test_a_folder_here_comes_first(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent.parent)
    assert checkpoint_folder(f"{checkpoint.parent.name}/{checkpoint.name}").resolve() == checkpoint.resolve()
