"""Tests that share what was made once are in one group."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.scheduling import SHARE_PRODUCT, group_of

TESTS = Path(__file__).parents[1]


def test_whoever_needs_the_product_is_in_its_group() -> None:
    found = []
    for path in sorted((TESTS / "acceptance").glob("test_*.py")):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        if any(argument.arg == "product" for function in functions for argument in function.args.args):
            found.append(f"tests/acceptance/{path.name}")
    assert tuple(found) == SHARE_PRODUCT
    assert {group_of(f"{path}::test_it[{number}::x]") for path in found for number in range(2)} == {"product"}


def test_a_file_is_a_group_and_a_seed_is_one() -> None:
    assert group_of("tests/unit/log/test_a.py::Test::test_it") == group_of("tests/unit/log/test_a.py::test_other[a::b]")
    assert group_of("tests/unit/log/test_a.py::test_it") != group_of("tests/unit/log/test_b.py::test_it")
    assert group_of("tests/simulation/test_a.py::test_it[1]") != group_of("tests/simulation/test_a.py::test_it[2]")
