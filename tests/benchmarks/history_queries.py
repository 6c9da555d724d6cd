# ruff: noqa: E501  SQL is read a line at a time
"""S10: SQL over ten million records, as the gateway asks it. Run as `python -m tests.benchmarks.history_queries [ROWS] [--keep FOLDER]`.

A history with realistic skew (`tests.workloads.history_rows`) is made inside of ClickHouse, once with a tenth of the rows and once with all.
Every question passes the guard and runs on a read-only connection with the limits of the product; the time is the median of `REPEATS`
runs after the first. `rows read` at both sizes says what does not grow.

The peer lies in the same engine: what a home-made sink writes, one table of all records ordered by time, the payload as a text of JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.report import report

ROWS = 10_000_000
REPEATS = 5
PEER_REPEATS = 2  #: it takes seconds where ours takes milliseconds
#: Which execution is asked about, and which event.
EXECUTION, EVENT = 10, 4_001

PLAIN = """CREATE TABLE plain (time DateTime64(6, 'UTC'), topic LowCardinality(String), type LowCardinality(String), payload String)
ENGINE = MergeTree ORDER BY time"""
#: The same records in the peer's table.
_SAME = "'id', id, 'correlation_id', correlation_id, 'causation_id', ifNull(causation_id, ''), 'data', data_text"
_STEP = "'execution_id', ifNull(execution_id, ''), 'step_id', ifNull(step_id, ''), 'attempt', toString(attempt)"
_STATE = "'workflow_id', toString(workflow_id), 'status', toString(status), 'sequence', toString(sequence)"
FILL_PLAIN = tuple(
    f"INSERT INTO plain SELECT time, _topic, type, toJSONString(map({', '.join(fields)})) FROM {table}"
    for table, *fields in (
        ("workflow_transitions", _SAME, _STEP, _STATE), ("module_messages", _SAME, _STEP), ("system_events", _SAME)
    )
)  # fmt: skip

_PLAIN_EXECUTION = "JSONExtractString(payload, 'execution_id')"
_PLAIN_STEPS = f"""SELECT workflow_id, step_id, quantileExact(0.95)(duration) AS p95, count() FROM
(
    SELECT {_PLAIN_EXECUTION} AS execution_id, JSONExtractString(payload, 'step_id') AS step_id, JSONExtractString(payload, 'attempt') AS attempt,
        any(JSONExtractString(payload, 'workflow_id')) AS workflow_id,
        dateDiff('millisecond', minIf(time, type = 'step.started'), maxIf(time, type != 'step.started')) AS duration
    FROM plain WHERE type IN ('step.started', 'step.completed', 'step.failed', 'step.retried') GROUP BY execution_id, step_id, attempt
) GROUP BY workflow_id, step_id ORDER BY p95 DESC LIMIT 10"""

#: (name, ours, the peer's or nothing); `{execution}`, `{end}` and `{event}` are texts.
QUESTIONS: tuple[tuple[str, str, str | None], ...] = (
    (
        "counts per type and minute, all",
        "SELECT type, toStartOfMinute(time) AS minute, count() AS n FROM system_events GROUP BY type, minute ORDER BY n DESC LIMIT 100",
        "SELECT type, toStartOfMinute(time) AS minute, count() AS n FROM plain WHERE topic IN ('mplp.system.events', 'mplp.module.messages') "
        "GROUP BY type, minute ORDER BY n DESC LIMIT 100",
    ),
    (
        "counts per type and minute, one day",
        "SELECT type, minute, sum(events) AS n FROM event_rates WHERE minute >= toDateTime('2026-01-20 00:00:00', 'UTC') "
        "AND minute < toDateTime('2026-01-21 00:00:00', 'UTC') GROUP BY type, minute ORDER BY n DESC LIMIT 100",
        "SELECT type, toStartOfMinute(time) AS minute, count() AS n FROM plain WHERE time >= toDateTime('2026-01-20 00:00:00', 'UTC') "
        "AND time < toDateTime('2026-01-21 00:00:00', 'UTC') GROUP BY type, minute ORDER BY n DESC LIMIT 100",
    ),
    ("busiest minutes of types, by the view", "SELECT minute, topic, type, events FROM event_rates ORDER BY events DESC LIMIT 100", None),
    (
        "records of a composite",
        "SELECT * FROM composites_with_events WHERE composite_id IN (SELECT id FROM composite_events WHERE _partition = 1 AND _offset = 7)",
        None,
    ),
    (
        "story of one execution",
        "SELECT sequence, time, type, step_id, attempt, status, data FROM workflow_transitions WHERE execution_id = {execution} ORDER BY sequence",
        f"SELECT time, type, payload FROM plain WHERE {_PLAIN_EXECUTION} = {{execution}} AND startsWith(topic, 'mplp.workflow') ORDER BY time",
    ),
    (
        "everything of one story",
        "SELECT time, record, type, id, data_text FROM records WHERE correlation_id = {execution} ORDER BY time",
        "SELECT time, type, payload FROM plain WHERE JSONExtractString(payload, 'correlation_id') = {execution} ORDER BY time",
    ),
    ("slowest steps", "saved:slowest-steps", _PLAIN_STEPS),
    ("causes of the end of an execution", "SELECT * FROM causes(id = {end}) ORDER BY distance", None),
    ("effects of an event", "SELECT * FROM causes(id = {event}) ORDER BY distance", None),
    ("one row of `executions`", "SELECT * FROM executions WHERE execution_id = {execution}", None),
    ("steps of one execution", "SELECT * FROM steps WHERE execution_id = {execution} ORDER BY started_at", None),
    ("a record by its id", "SELECT record, type, subject FROM records WHERE id = {event}", None),
    (
        "failing executions of an hour",
        "SELECT execution_id, type, error_code FROM workflow_transitions WHERE type = 'execution.failed' "
        "AND time >= toDateTime('2026-01-20 10:00:00', 'UTC') AND time < toDateTime('2026-01-20 11:00:00', 'UTC')",
        None,
    ),
)


def make(folder: Path, rows: int) -> None:
    """Fills a folder; nobody else may have it open."""
    from services.history.engine import open_client
    from services.history.migrate import migrate
    from streams.settings import Settings
    from tests.workloads.history_rows import Size, fill

    settings = Settings(data_dir=folder)
    client = open_client(settings, database=None, session={})
    migrate(client, settings.clickhouse_database)
    fill(client, Size.of(rows))
    for statement in (PLAIN, *FILL_PLAIN):
        client.command(statement)
    client.close()


def measure(folder: Path) -> dict[str, Any]:
    """Milliseconds and rows read of every question, and what the process took."""
    from services.history import query as sql_of
    from services.history.engine import open_client
    from services.history.query import QueryLimits
    from services.history.saved import ready
    from streams.settings import Settings
    from tests.workloads.history_rows import event, execution

    settings = Settings(data_dir=folder)
    own = open_client(settings, database=settings.clickhouse_database, session={})
    functions = sql_of.functions_of(own)
    reader = open_client(settings, database=settings.clickhouse_database, session=QueryLimits.of(settings).settings())
    ids = {
        "execution": own.query(f"SELECT {execution(EXECUTION)}").result_rows[0][0],
        "event": own.query(f"SELECT {event(EVENT)}").result_rows[0][0],
    }
    last = "SELECT id FROM workflow_transitions WHERE execution_id = {e:String} ORDER BY sequence DESC LIMIT 1"
    ids["end"] = own.query(last, parameters={"e": ids["execution"]}).result_rows[0][0]

    def asked(client: Any, text: str, parameters: dict[str, Any] | None, repeats: int = REPEATS) -> dict[str, Any]:
        times = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            answer = json.loads(client.raw_query(text, parameters=parameters, fmt="JSON"))
            times.append((time.perf_counter() - began) * 1000)
        read = answer["statistics"]["rows_read"]
        return {"ms": round(statistics.median(times[1:]), 1), "first_ms": round(times[0], 1), "rows": answer["rows"], "rows_read": read}

    figures: dict[str, Any] = {}
    for name, ours, peer in QUESTIONS:
        sql, parameters = ours, {}
        if ours.startswith("saved:"):
            sql, parameters = ready()[ours.removeprefix("saved:")].sql, {"hours": 1_000_000, "limit": 10}
        sql = _filled(sql, ids)
        prepared = sql_of.prepare(own, sql, parameters, database=settings.clickhouse_database, functions=functions)
        figures[name] = asked(reader, prepared.sql(), dict(prepared.parameters) or None)
        if peer is not None:
            figures[name]["peer"] = asked(own, _filled(peer, ids), None, PEER_REPEATS)
    figures["rows"] = own.query("SELECT sum(rows) FROM system.parts WHERE active AND database = 'mplp' AND table != 'plain'").result_rows[
        0
    ][0]
    sizes = "SELECT sumIf(bytes_on_disk, table != 'plain'), sumIf(bytes_on_disk, table = 'plain') FROM system.parts WHERE active AND database = 'mplp'"
    figures["disk_mib"], figures["peer_disk_mib"] = (round(size / 2**20) for size in own.query(sizes).result_rows[0])
    figures["peak_rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return figures


def _filled(sql: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        sql = sql.replace(f"{{{name}}}", f"'{value}'")
    return sql


def _elsewhere(call: str) -> str:
    """What a call prints in a process of its own: one process opens one folder, and its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.benchmarks.history_queries import *; {call}"], text=True, stdout=subprocess.PIPE, check=True
    )
    return done.stdout


def figures_of(folder: Path, rows: int) -> dict[str, Any]:
    """Fills the folder if it is empty, and measures."""
    if not folder.exists():
        _elsewhere(f"make(Path({str(folder)!r}), {rows})")
    found: dict[str, Any] = json.loads(_elsewhere(f"print(json.dumps(measure(Path({str(folder)!r}))))"))
    return found


def main() -> None:
    """Both sizes."""
    arguments = sys.argv[1:]
    kept = Path(arguments[arguments.index("--keep") + 1]) if "--keep" in arguments else None
    rows = int(arguments[0]) if arguments and arguments[0].isdigit() else ROWS
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as name:
        folder = kept or Path(name)
        small, large = (figures_of(folder / f"history-{size}", size) for size in (rows // 10, rows))
    for question, _, _ in QUESTIONS:
        large[question]["rows_read_tenth"] = small[question]["rows_read"]
    report(
        "history_queries", f"SQL over {large['rows']:,} records, embedded", large,
        bar="S10: counts per type and minute, one story, slowest steps 1 s each, aim 0.2 s", durability="nothing is written",
    )  # fmt: skip


if __name__ == "__main__":
    main()
