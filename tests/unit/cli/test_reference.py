"""The generated reference says what the code does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from services.cli.reference import pages
from services.processes.reference import codes_in_use

DOCS = Path(__file__).resolve().parents[3] / "docs" / "reference"


@pytest.fixture(scope="module")
def made() -> Mapping[str, str]:
    return pages()


@pytest.mark.parametrize("name", ["cli.md", "http.md", "settings.md", "errors.md", "queries.md"])
def test_the_page_is_up_to_date(name: str, made: Mapping[str, str]) -> None:
    assert (DOCS / name).read_text() == made[name], "make it again: python -m services.cli.reference"


def test_codes_are_found_however_they_are_given() -> None:
    found = {code.code for code in codes_in_use()}
    assert {
        "bind.unprotected",  # to a class
        "schema.unregistered",  # to a class, after a condition
        "sql.timeout",  # in a table
        "dependency.cycle",  # to a violation
    } <= found
