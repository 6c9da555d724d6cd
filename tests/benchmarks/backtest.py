"""`mplp rules backtest` for one rule, over the embedded history, as a user runs it. Run as `python -m tests.benchmarks.backtest [RECORDS]`.

- `every record`: all records of the period are of the rule's type, so each goes from ClickHouse through HTTP, matching and the engine;
- `one in twenty`: they are of twenty types, and ClickHouse leaves out nineteen.

The history is filled before `mplp up`; the shell's own figures count, without the start of the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.product import mplp
from tests.benchmarks.report import report

RECORDS = 1_000_000
#: Events a second of the stored history, and groups.
PER_SECOND = 1000
GROUPS = 1000
FROM = "2026-01-01T00:00:00Z"

_FILL = """INSERT INTO system_events
(id, type, source, subject, time, tenant, correlation_id, data_text, severity, _topic, _partition, _offset, _timestamp)
SELECT concat('00000000-0000-7000-8000-', leftPad(toString(number), 12, '0')), concat('{kind}', toString(number % {kinds})), 'shop',
concat('order-', toString(number % 5000)), toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalMicrosecond(number * {step}) AS at,
'default', concat('story-', toString(number % 5000)),
concat('{{"customer":"c', toString(number * 7919 % {groups}), '","amount":', toString(number % 97), ',"currency":"EUR"}}'),
'info', 'mplp.system.events', 0, number, at FROM numbers({records})"""


def fill(folder: Path, records: int) -> None:
    """Puts records of both kinds into the history of a data folder; nobody else may have it open."""
    from services.history.engine import open_client
    from services.history.migrate import migrate
    from streams.settings import Settings

    settings = Settings(data_dir=folder)
    client = open_client(settings, database=None, session={})
    migrate(client, settings.clickhouse_database)
    for kind, kinds in (("order.every", 1), ("order.kind", 20)):
        client.command(_FILL.format(kind=kind, kinds=kinds, step=1_000_000 // PER_SECOND, groups=GROUPS, records=records))
    client.close()


def rule(type_: str) -> dict[str, Any]:
    """At least 295 in five minutes of one customer, who has 300: one composite each, and all records stay in windows."""
    correlation = {"type": "event_count", "group-by": ["data.customer"], "timespan": "5m", "condition": {"gte": 295}}
    return {"id": "busy", "events": {"order": {"type": type_}}, "correlation": correlation}


def measured(folder: Path, type_: str, records: int) -> dict[str, Any]:
    """The summary of one backtest, and its rates."""
    file = folder / "rule.json"
    file.write_text(json.dumps(rule(type_)))
    until = f"2026-01-01T{records // PER_SECOND // 3600 + 1:02}:00:00Z"
    environment = {**os.environ, "MPLP_DATA_DIR": str(folder)}
    command = [sys.executable, "-m", "services.cli", "rules", "backtest", str(file), "--from", FROM, "--to", until, "--json"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    summary = json.loads(done.stderr.splitlines()[-1])
    seconds = summary["seconds"]
    return {
        "records": summary["records"], "read": summary["read"], "composites": len(done.stdout.splitlines()), "seconds": seconds,
        "read_per_second": round(summary["read"] / seconds), "records_per_second": round(summary["records"] / seconds),
    }  # fmt: skip


def main() -> None:
    """All of it."""
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as name:
        folder = Path(name)
        filled = [sys.executable, "-c", f"from tests.benchmarks.backtest import *; fill(Path({name!r}), {records})"]
        subprocess.run(filled, check=True)
        mplp(folder, "up", "--detach")
        try:
            figures = {
                "every record": measured(folder, "order.every0", records),
                "one in twenty": measured(folder, "order.kind7", records),
            }  # fmt: skip
        finally:
            mplp(folder, "down")
    report(
        "backtest", f"event_count of one rule over {2 * records:,} stored records", figures,
        bar="100,000 records/s for one rule", durability="nothing is written",
    )  # fmt: skip


if __name__ == "__main__":
    main()
