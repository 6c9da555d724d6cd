"""The reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams import reference
from streams.records import RECORDS
from streams.topics import CATALOGUE


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_pages_are_current(name: str) -> None:
    assert (reference.REFERENCE / name).read_text() == reference.pages()[name], "run: python -m streams.reference"


def test_pages_name_everything(tmp_path: Path) -> None:
    reference.main(tmp_path / "new")
    topics, records = ((tmp_path / "new" / name).read_text() for name in ("topics.md", "records.md"))
    assert all(f"`{topic.name}`" in topics for topic in CATALOGUE)
    assert all(f"\n## {name}\n" in records for name in RECORDS)
