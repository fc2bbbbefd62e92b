"""A checkpoint to a hub and back, with a client that stands in for the hub's."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from gemvlm.commands import sharing
from gemvlm.inference.hub import hub_folder, push_folder
from gemvlm.inference.load import any_checkpoint_folder, load

TOKEN = "hf_" + "s" * 20
OTHERS = (
    "optimizer.safetensors",
    "average-00001-of-00002.safetensors",
    "state.json",
    "manifest.json",
    "metrics.jsonl",
    "notes.txt",
    "credentials.json",
    "weights.bin",
    ".env",
    "model.safetensors.draft",
)


class Hub:
    """Keeps what it is sent, as the hub does: one folder for each repository and branch."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.made: dict[str, bool] = {}
        self.refuses: Exception | None = None

    def __call__(self) -> Hub:
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        if self.refuses:
            raise self.refuses
        assert exist_ok
        self.made.setdefault(repo_id, private)

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        assert exist_ok and repo_id in self.made and branch

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, revision: str | None, allow_patterns: list[str]
    ) -> SimpleNamespace:
        from huggingface_hub.utils import filter_repo_objects

        place = self.home / repo_id / (revision or "main")
        names = [str(path.relative_to(folder_path)) for path in folder_path.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder_path / name, place / name)
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")

    def hf_hub_download(self, repository: str, name: str, revision: str | None) -> str:
        path = self.home / repository / (revision or "main") / name
        if not path.is_file():
            raise LocalEntryNotFoundError(f"404: {name}")
        return str(path)

    def snapshot_download(self, repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        return str(self.home / repository / (revision or "main"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    found = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", found)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", found.hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return found


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint among what a run leaves beside it."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    (folder / "README.md").write_text("# Mine\n")
    for name in OTHERS:
        (folder / name).write_text("secret")
    (folder / "sub").mkdir()
    (folder / "sub" / "gem.json").write_text("secret")
    return folder


def test_what_was_pushed_is_what_is_loaded(hub: Hub, folder: Path) -> None:
    pushed = push_folder(folder, "me/gem", message="first")
    assert pushed.url == "https://hub.example/me/gem/commit/1" and hub.made == {"me/gem": True}
    assert load("me/gem", device="cpu").card.recipe == "tiny"


def test_weights_descriptions_and_card_alone_leave_this_machine(hub: Hub, folder: Path) -> None:
    (folder / "LICENSE").write_text("Apache License\n")
    pushed = push_folder(folder, "me/gem", message="first")
    there = {str(path.relative_to(hub.home / "me/gem/main")) for path in (hub.home / "me/gem").rglob("*.*")}
    there |= {path.name for path in (hub.home / "me/gem/main").iterdir()}
    assert {"model.safetensors", "gem.json", "config.json", "tokenizer.json", "README.md", "LICENSE"} <= there
    assert all("secret" not in path.read_text(errors="replace") for path in (hub.home / "me/gem/main").iterdir())
    assert {*OTHERS, "sub"} == set(pushed.left)
    assert there.isdisjoint(pushed.left)


def test_a_branch_and_a_public_repository(hub: Hub, folder: Path) -> None:
    push_folder(folder, "me/gem", message="first", public=True, revision="v2")
    assert hub.made == {"me/gem": False}
    assert hub_folder("me/gem@v2").name == "v2"
    with pytest.raises(ValueError, match=r"holds gem_vla\.json"):
        hub_folder("me/gem@v2", "gem_vla.json")


def test_a_policy_is_found_by_the_commands_that_take_both_kinds(hub: Hub, folder: Path) -> None:
    (folder / "gem.json").rename(folder / "gem_vla.json")
    push_folder(folder, "me/policy", message="first")
    assert (any_checkpoint_folder("me/policy") / "gem_vla.json").is_file()
    with pytest.raises(ValueError, match=r"holds gem\.json or gem_vla\.json"):
        any_checkpoint_folder("me/nothing")


@pytest.mark.parametrize("name", ["gem", "me/gem@v2", "a/b/c", "../x", "https://x/y"])
def test_what_is_no_repository_is_refused(hub: Hub, folder: Path, name: str) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(ValueError, match="write OWNER/NAME"):
        sharing.push(str(folder), name)
    with pytest.raises(ValueError, match="write OWNER/NAME"):
        push_folder(folder, name, message="first")
    assert not hub.made and not (folder / "README.md").exists()


@pytest.mark.parametrize("missing", ["README.md", "model.safetensors"])
def test_half_a_checkpoint_is_refused(hub: Hub, folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=r"weights or README\.md missing"):
        push_folder(folder, "me/gem", message="first")
    assert not hub.made


def test_the_token_is_no_option_and_in_no_message(hub: Hub, folder: Path) -> None:
    for function in (push_folder, sharing.push):
        assert not any("token" in option or "key" in option for option in inspect.signature(function).parameters)
    hub.refuses = OSError(f"401 for Bearer {TOKEN}\nmore")
    with pytest.raises(ValueError, match=r"did not take .* \(401 for Bearer \*\*\*\); log in") as error:
        push_folder(folder, "me/gem", message="first")
    assert TOKEN not in str(error.value) and error.value.__cause__ is None and error.value.__suppress_context__


def test_the_command_writes_the_card_that_is_missing(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "README.md").unlink()
    sharing.push(str(folder), "me/gem")
    told = capsys.readouterr().out
    assert told.startswith("https://hub.example/me/gem/commit/1\nleft here: ") and TOKEN not in told
    assert "A GEM (arXiv 2605.28548" in (hub.home / "me/gem/main/README.md").read_text()


def test_the_card_is_printed_or_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "README.md").unlink()
    sharing.card(str(folder))
    printed = capsys.readouterr().out
    assert printed.startswith("---\n") and not (folder / "README.md").exists()
    sharing.card(str(folder), write=True)
    assert (folder / "README.md").read_text() == printed and capsys.readouterr().out == f"{folder / 'README.md'}\n"
