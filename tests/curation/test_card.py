"""Cards and counts of sets whose words nobody should trust."""

from __future__ import annotations

import json
from typing import Any

from gemvlm.curation.card import Card
from gemvlm.curation.facts import LARGEST_NUMBER_TABLE, OTHER, Facts
from gemvlm.curation.funnel import Funnel
from gemvlm.curation.plan import Plan, SourceUse

EVIL = "x | <script>alert(1)</script>\n# `y` [z](javascript:q)"


def row(**fields: Any) -> dict[str, Any]:
    turn = {"family": EVIL, "task": "reasoning", "kind": "text", "answer": "a", "options": [], "places": []}
    terms = {"licence": "MIT", "version": "", "split": "train"}
    return {"source": "s", "scene": "here", **terms, "dialogue": False, "frames": [], "turns": [turn], **fields}


def card_of(*rows: dict[str, Any]) -> Card:
    facts, plan = Facts(), Plan("p", EVIL, (SourceUse("s", "tabletop"), SourceUse("t", "sat", located_by="path")))
    for fields in rows:
        facts.add(fields)
    identity = {"libraries": {"numpy": "2"}, "code": "abc"}
    return Card(plan, identity, facts, Funnel(), "gemvlm curate p")


def test_words_of_the_data_are_only_words() -> None:
    text = card_of(row(source=EVIL)).to_markdown()
    assert "<script" not in text.replace("\\<script", "")
    table = text[text.index("## Question families") : text.index("## Depth")].strip().splitlines()
    assert all(line.replace("\\|", "").count("|") == 5 for line in table[2:])


def test_the_header_names_licences_only_if_all_are_known() -> None:
    assert "license:\n- cc-by-4.0\n- mit\n" in card_of(row(), row(licence="CC-BY-4.0")).to_markdown()
    assert "license:\n- other\n" in card_of(row(), row(licence="unknown")).to_markdown()
    assert "license:\n- other\n" in card_of(row(licence="mit\nevil: 1")).to_markdown()


def test_what_is_in_the_plan_but_not_in_the_set_is_said() -> None:
    card = card_of(row())
    assert "**not in this set**, since their data was not given: t." in card.to_markdown()
    assert json.loads(card.to_bytes())["not_included"] == ["t"]


def test_counting_takes_bounded_memory() -> None:
    facts = Facts()
    for number in range(LARGEST_NUMBER_TABLE + 50):
        facts.add(row(turns=[{**row()["turns"][0], "family": "f", "answer": str(number)}]))
    assert len(facts.families["f"].answers) == LARGEST_NUMBER_TABLE + 1 and facts.families["f"].answers[OTHER] == 50


def test_letters_are_counted_where_the_answer_is_an_option() -> None:
    facts = Facts()
    for answer in ("p", "q", "q", "r"):
        facts.add(
            row(turns=[{**row()["turns"][0], "family": "f", "kind": "choice", "options": ["p", "q"], "answer": answer}])
        )
    assert facts.families["f"].letters == {"A": 1, "B": 2, OTHER: 1}
