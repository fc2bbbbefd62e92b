"""The pages say what is there: their commands parse, their Python compiles and imports, their links lead somewhere.

What a page shows is not run here (`test_docs_using.py` does that for one page): each `gemvlm ...` of a code block, and
of a module's docstring, goes through the real command line with functions that do nothing; each in running text names a
command and options there are.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tyro.extras import get_parser

import gemvlm.__main__ as command_line
from gemvlm.__main__ import COMMANDS, VLA, command, main

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EVERYTHING = [ROOT / "README.md", *PAGES, ROOT / "client" / "README.md", *sorted(ROOT.glob("packages/*/README.md"))]
BLOCK = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash", "console")
HERE, ELSEWHERE = "gemvlm", ("torchrun", "python")


def blocks(page: Path, languages: tuple[str, ...]) -> Iterator[str]:
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield text


def words_of(line: str) -> list[str] | None:
    """What follows `gemvlm` on a line, None if it starts something else.

    Variables before it, a launcher (`torchrun ... -m gemvlm`), pipes, remarks, and the signs for what may be or
    was left out (`[--option VALUE]`, `...`) are taken off.
    """
    if not re.search(rf"(^|\s){HERE} ", line):
        return None
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split = True
    words = list(lexer)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words and words[0] in ELSEWHERE and "-m" in words and words[words.index("-m") + 1] == HERE:
        words = words[words.index("-m") + 1 :]
    if not words or words[0] != HERE:
        return None
    end = next((place for place, word in enumerate(words) if set(word) <= set("|&;>")), len(words))
    return [bare for word in words[1:end] if word != "..." and (bare := re.sub(r"^\[(?=--)|(?<!\])\]$", "", word))]


def command_lines(page: Path) -> list[list[str]]:
    found = []
    for text in blocks(page, SHELL):
        for line in text.replace("\\\n", " ").splitlines():
            if (words := words_of(line)) is not None:
                found.append(words)
    return found


def test_command_lines_are_found_in_what_stands_around_them() -> None:
    assert words_of('GEMVLM_API_KEY=... gemvlm ask nano a.png "What? #1"  # why') == [
        "ask",
        "nano",
        "a.png",
        "What? #1",
    ]
    assert words_of("torchrun --nproc-per-node 8 -m gemvlm train gem_2b --out x") == ["train", "gem_2b", "--out", "x"]
    assert words_of("gemvlm train a ... --start qwen=X [--start dc_ae=Y]") == [
        "train", "a", "--start", "qwen=X", "--start", "dc_ae=Y",
    ]  # fmt: skip
    assert words_of("gemvlm card nano > card.md") == ["card", "nano"]
    assert words_of("pip install gemvlm ") is None and words_of("git clone x") is None


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """What the command line has against some words; nothing if it would carry them out."""

    def parses_only(name: str) -> Callable[..., None]:
        function = command(name)

        @functools.wraps(function)
        def nothing(*values: object, **named: object) -> None:
            parsed.append(name)

        return nothing

    monkeypatch.setattr(command_line, "command", parses_only)
    parsed: list[str] = []

    def judge(words: list[str]) -> str:
        parsed.clear()
        if not words or words[-1] in ("--help", "--version"):
            return ""
        try:
            status = main(words)
        except SystemExit as done:
            status = done.code  # type: ignore[assignment]
        told = capsys.readouterr()
        fine = status == 0 and parsed
        return "" if fine else f"gemvlm {shlex.join(words)}\n{told.err}{told.out}"

    return judge


@pytest.mark.parametrize("page", EVERYTHING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_parses(page: Path, refused: Callable[[list[str]], str]) -> None:
    wrong = [reason for words in command_lines(page) if (reason := refused(words))]
    assert not wrong, "\n".join(wrong)


def test_command_lines_in_docstrings_parse(refused: Callable[[list[str]], str]) -> None:
    wrong = []
    for module in sorted((ROOT / "src").rglob("*.py")):
        told = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")), clean=False) or ""
        for line in re.findall(rf"^ {{4}}((?:torchrun .* -m )?{HERE} .*)$", told.replace("\\\n", " "), re.MULTILINE):
            if (words := words_of(line)) is not None and (reason := refused(words)):
                wrong.append(f"{module.relative_to(ROOT)}: {reason}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("line", ["depth nano a.png --outt x", "nothing", "vla train --data", "card", "vla fly"])
def test_a_command_line_that_is_wrong_is_found(line: str, refused: Callable[[list[str]], str]) -> None:
    assert refused(line.split()).startswith(f"gemvlm {line}")


@functools.cache
def options(name: str) -> frozenset[str]:
    return frozenset(option for action in get_parser(command(name))._actions for option in action.option_strings)


@pytest.mark.parametrize("page", EVERYTHING, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_running_text_are_there(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for quoted in re.findall(rf"`{HERE} ([^`]*)`", text):
        words = [re.sub(r"[\[\]]", "", word) for word in quoted.split()]
        if not words or words[0].startswith("--") or words[0].isupper():
            continue
        name = " ".join(words[:2]) if words[0] == VLA and len(words) > 1 else words[0]
        assert name == VLA or name in COMMANDS, f"{page.name}: gemvlm {quoted}"
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in options(name), f"{page.name}: gemvlm {quoted} ({option})"


@pytest.mark.parametrize("page", EVERYTHING, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_compiles_and_imports_what_there_is(page: Path) -> None:
    for text in blocks(page, ("python", "py")):
        tree = ast.parse(inspect.cleandoc(text), str(page))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] == HERE:
                        importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == HERE:
                assert node.module is not None
                for alias in node.names:
                    module = importlib.import_module(node.module)
                    there = hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
                    assert there, f"{page.name}: {node.module} has no {alias.name}"


@pytest.mark.parametrize("page", EVERYTHING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in headings]
            assert anchor in slugs, f"{page.name}: {target}; there are {slugs}"


def test_every_page_is_in_the_navigation() -> None:
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (?:.*: )?([\w./-]+\.md)$", told, re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES]


def test_the_site_asks_nobody_for_anything() -> None:
    """No fonts or scripts from elsewhere: the page that is read offline is the same."""
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in told and "extra_javascript" not in told and "analytics" not in told


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_a_network(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="the site needs the extra docs")
    site = tmp_path / "site"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (site / "search" / "search_index.json").is_file()
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(https?:)?//|<link[^>]+(?:stylesheet|preload)[^>]+href="(https?:)?//'
    )
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text(encoding="utf-8")), page
    assert "GemPipeline" in (site / "api" / "index.html").read_text(encoding="utf-8")
