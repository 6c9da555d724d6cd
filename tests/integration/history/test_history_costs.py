"""What a question reads: of one thing a few granules, however large the history is, whatever view it is asked through."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
from clickhouse_connect.driver.client import Client

from services.history import query as sql_of
from services.history.engine import open_client
from services.history.migrate import migrate
from services.history.query import Functions, QueryLimits
from streams.settings import Settings
from tests.workloads.history_rows import Size, event, execution, fill

#: Rows of a granule, which is read whole.
GRANULE = 8192
SIZE = Size(executions=4_000, events=40_000)
#: An hour of the forty days that the rows are spread over.
HOUR = "BETWEEN toDateTime('2026-01-20 10:00:00', 'UTC') AND toDateTime('2026-01-20 10:59:00', 'UTC')"


class Asker:
    """Asks as the product does: checked, written out, with the settings of its connections."""

    def __init__(self, own: Client, reader: Client, functions: Functions) -> None:
        self._own, self._reader, self._functions = own, reader, functions
        self.values = {
            "{execution}": self._value(f"SELECT {execution(10)}"),
            "{event}": self._value(f"SELECT {event(4_001)}"),
            "{composite}": self._value("SELECT id FROM composite_events WHERE _offset = 7 AND _partition = 1"),
            "{member}": self._value(f"SELECT {event(54)}"),
            "{hour}": HOUR,
        }

    def _value(self, sql: str) -> str:
        return f"'{self._own.query(sql).result_rows[0][0]}'"

    def read(self, sql: str) -> tuple[int, int]:
        """Rows that are read, and rows of the answer."""
        for name, value in self.values.items():
            sql = sql.replace(name, value)
        prepared = sql_of.prepare(self._own, sql, {}, database="mplp", functions=self._functions)
        answer = orjson.loads(self._reader.raw_query(prepared.sql(), fmt="JSON"))
        return int(answer["statistics"]["rows_read"]), int(answer["rows"])


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("costs"))
    own = open_client(settings, database=None, session={})
    migrate(own, "mplp")
    fill(own, SIZE)
    reader = open_client(settings, database="mplp", session=QueryLimits.of(settings).settings())
    yield Asker(own, reader, sql_of.functions_of(own))
    reader.close()
    own.close()


#: (question about one thing, granules that it may read). The tables have a part for each of two months, and each may give a granule.
ONE: tuple[tuple[str, int], ...] = (
    ("SELECT * FROM executions WHERE execution_id = {execution}", 2),
    ("SELECT * FROM executions WHERE execution_id IN ({execution}, 'nobody') AND status = 'completed'", 2),
    ("SELECT * FROM steps WHERE execution_id = {execution}", 2),
    ("SELECT * FROM steps WHERE execution_id = {execution} AND step_id = 'step-1'", 2),
    ("SELECT * FROM executions_at(at = '2026-03-01T00:00:00Z') WHERE execution_id = {execution}", 2),
    ("SELECT * FROM steps_at(at = '2026-03-01T00:00:00Z') WHERE execution_id = {execution}", 6),
    ("SELECT e.status, s.step_id FROM executions AS e JOIN steps AS s USING (execution_id) WHERE e.execution_id = {execution}", 4),
    ("SELECT * FROM records WHERE id = {event}", 2),
    ("SELECT * FROM records WHERE causation_id = {event}", 6),
    ("SELECT * FROM records WHERE correlation_id = {execution}", 8),
    ("SELECT * FROM records WHERE execution_id = {execution}", 8),
    ("SELECT * FROM system_events WHERE subject = 'plan-10'", 2),
    ("SELECT * FROM composites_with_events WHERE composite_id = {composite}", 7),
    ("SELECT * FROM composites_with_events WHERE event_id = {member}", 3),
    ("SELECT * FROM composites_with_events WHERE rule_id = 'rule-30' AND composite_time {hour}", 7),
    ("SELECT * FROM delivery_health WHERE route_id = 'route-9'", 1),
    ("SELECT * FROM causes(id = {event})", 16),
)


@pytest.mark.parametrize(("sql", "granules"), ONE)
def test_a_question_about_one_thing_reads_a_few_granules(asker: Asker, sql: str, granules: int) -> None:
    rows_read, rows = asker.read(sql)
    assert rows_read <= granules * GRANULE
    assert rows > 0 or "rule_id" in sql or "causation_id" in sql


#: (question, the same without its filter, what share of the rows the filter may leave).
PART: tuple[tuple[str, str, float], ...] = (
    ("SELECT * FROM event_rates WHERE minute {hour}", "SELECT * FROM event_rates", 0.6),
    ("SELECT * FROM event_rates WHERE topic = 'mplp.composite.events'", "SELECT * FROM event_rates", 0.5),
    ("SELECT * FROM ingest_lag WHERE minute {hour}", "SELECT * FROM ingest_lag", 0.8),
    ("SELECT * FROM delivery_health WHERE minute {hour}", "SELECT * FROM records", 0.1),
)  # fmt: skip


@pytest.mark.parametrize(("sql", "whole", "share"), PART)
def test_a_filter_reaches_the_tables(asker: Asker, sql: str, whole: str, share: float) -> None:
    rows_read, rows = asker.read(sql)
    assert rows > 0
    assert rows_read <= share * asker.read(whole)[0]


def test_latencies_of_modules_read_transitions_and_messages_once(asker: Asker) -> None:
    rows_read, rows = asker.read("SELECT * FROM module_latency")
    assert rows > 0
    assert rows_read <= sum(
        asker.read(f"SELECT count() FROM {table} WHERE NOT ignore(id)")[0] for table in ("workflow_transitions", "module_messages")
    )


def test_counts_per_minute_are_read_where_they_lie_and_agree_with_the_rows(asker: Asker) -> None:
    counted = "SELECT toStartOfMinute(time) AS minute, _topic, type, count() AS n FROM system_events GROUP BY minute, _topic, type"
    every, _ = asker.read("SELECT count() FROM system_events WHERE NOT ignore(id)")
    assert asker.read(counted)[0] < every
    from_rows = counted.replace("FROM system_events", "FROM (SELECT * FROM system_events WHERE NOT ignore(id))")
    assert asker.read(from_rows)[0] == every
    assert asker.read(f"{counted} EXCEPT ALL {from_rows}")[1] == 0
