"""Every name is defined where it is used. The linter can't tell: to it the axes in "T D" are names, too."""

from __future__ import annotations

import builtins
import symtable
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for folder in ("src", "client/src", "packages", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
]
KNOWN = {*dir(builtins), "__file__", "__annotations__", "__class__", "__path__"}


def undefined(source: str, name: str) -> set[str]:
    """Names that are read and bound nowhere: not in the module, not in a function around, not by Python."""
    table = symtable.symtable(source, name, "exec")
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    bound |= {s.get_name() for inner in _within(table) for s in inner.get_symbols() if s.is_declared_global()}
    used = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    used |= {s.get_name() for inner in _within(table) for s in inner.get_symbols() if s.is_global()}
    return used - bound - KNOWN


def _within(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for inner in table.get_children():
        yield inner
        yield from _within(inner)


def test_a_name_that_was_forgotten_is_found() -> None:
    assert undefined("from a import b\ndef f(x: b):\n    return replace(x) + b + len(x)\n", "x.py") == {"replace"}
    assert undefined("def f():\n    g = 1\n    return lambda: g\n", "x.py") == set()


def test_names() -> None:
    found = {str(path.relative_to(ROOT)): undefined(path.read_text(encoding="utf-8"), str(path)) for path in FILES}
    assert found and {path: names for path, names in found.items() if names} == {}
