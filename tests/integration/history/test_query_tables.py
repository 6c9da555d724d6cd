"""What ClickHouse's documentation says can be done is refused or bounded; what analysts ask is answered right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.history.query import QueryLimits
from services.history.store import History
from streams.errors import BackboneError, Fault
from streams.settings import Settings
from tests.integration.history.analysts import ANSWERS
from tests.integration.history.hostile import BOUNDED, REFUSED
from tests.integration.history.world import fill

LIMITS = QueryLimits(seconds=2, rows=100, result_bytes=5_000_000, memory_bytes=100_000_000)


@pytest.fixture(scope="module")
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    async with History(Settings(data_dir=tmp_path_factory.mktemp("history"))) as history:
        await fill(history)
        yield history


@pytest.mark.parametrize(("sql", "code"), REFUSED)
async def test_it_is_refused_and_writes_nothing(history: History, tmp_path: Path, sql: str, code: str) -> None:
    target = tmp_path / "written"
    with pytest.raises(BackboneError) as refused:
        await history.query(sql.replace("{f}", str(target)), {"x": "1"}, limits=LIMITS)
    assert (refused.value.code, refused.value.fault) == (code, Fault.CALLER)
    assert not target.exists()


@pytest.mark.parametrize(("sql", "codes"), BOUNDED)
async def test_it_is_bounded(history: History, sql: str, codes: frozenset[str]) -> None:
    with pytest.raises(BackboneError) as ended:
        await history.query(sql, limits=LIMITS)
    assert ended.value.code in codes
    assert (await history.query("SELECT count() FROM system_events", limits=LIMITS)).rows() == [[13]]


@pytest.mark.parametrize(("sql", "rows"), ANSWERS)
async def test_it_is_answered(history: History, sql: str, rows: list[list[Any]]) -> None:
    assert (await history.query(sql)).rows() == rows


@pytest.mark.parametrize("lead", [")", "')", "*/)", "1)"])
async def test_a_value_that_the_text_has_no_place_for_is_never_written_into_it(history: History, tmp_path: Path, lead: str) -> None:
    """The driver writes parameters that no `{name:Type}` takes into the text, for Python's `%(name)s`, after the guard has seen it."""
    target = tmp_path / "written"
    given = {"x": f"{lead} INTO OUTFILE $${target}$$ -- ", "y": 1}
    for sql, rows in (("SELECT '%(x)s'", [["%(x)s"]]), ("SELECT 1 /* %(x)s */", [[1]]), ("SELECT '%(x)s', {y:Int64}", [["%(x)s", 1]])):
        assert (await history.query(sql, given)).rows() == rows
        assert not target.exists()


async def test_a_parameter_without_a_value_is_said(history: History) -> None:
    with pytest.raises(BackboneError) as refused:
        await history.query("SELECT '%(x)s', {y:Int64}", {"x": "1"})
    assert (refused.value.code, refused.value.pointer) == ("sql.parameter", "/parameters/y")
