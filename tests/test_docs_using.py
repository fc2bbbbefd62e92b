"""`docs/using.md` says what happens: its Python runs, its commands answer as shown."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

import gemvlm.inference
from gemvlm.__main__ import main

PAGE = Path(__file__).parents[1] / "docs" / "using.md"
BLOCKS = re.findall(r"^```(python|sh|text)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+\.\d+|\d+")
CLOSE = 0.03
"""Shares, metres: another processor rounds otherwise."""


@pytest.mark.slow
def test_what_the_page_shows_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun", reason="the page writes recordings: extra rerun")
    load = cache(gemvlm.inference.load)
    monkeypatch.setattr(gemvlm.inference, "load", lambda name, *_: load(name, "cpu"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    shown = iter([*BLOCKS[1:], ("", "")])
    for language, text in BLOCKS:
        following, expected = next(shown)
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
            capsys.readouterr()
        elif language == "sh":
            (command,) = text.splitlines()
            program, *words = shlex.split(command)
            assert program == "gemvlm" and main(words) == 0, command
            said = capsys.readouterr().out
            if following == "text":
                assert NUMBER.sub("#", said) == NUMBER.sub("#", expected), command
                for number, wanted in zip(NUMBER.findall(said), NUMBER.findall(expected), strict=True):
                    scale = 1.0 if "." in wanted else 1000.0
                    assert abs(float(number) - float(wanted)) <= CLOSE * scale, (command, number, wanted)


def test_every_command_of_the_page_has_its_block() -> None:
    commands = {text.split()[1] for language, text in BLOCKS if language == "sh"}
    assert {"ask", "point", "box", "plan", "depth", "locate"} <= commands


def test_its_pictures_are_there() -> None:
    for name in re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / name).is_file()
