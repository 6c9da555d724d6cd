"""`mplp modules state|checksum|rebuild`: what the owners of the modules' state know, whether it is the same, and to have it folded anew."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from services.cli import frame
from streams.bus import Bus, connect
from streams.durations import parse_duration_ms
from streams.errors import Unavailable

HUB = "hub"
PAGE = 1000
AGAIN_S = 0.2

Module = Annotated[str | None, typer.Argument(help="Name of a built-in module; without: all.")]


@frame.command
async def state(
    module: Module = None,
    id: Annotated[str | None, typer.Option(help="Only the aggregate with this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="Most aggregates.")] = 100,
    after: Annotated[str, typer.Option(help="Only aggregates whose id comes after this one.")] = "",
    as_json: frame.JsonFlag = False,
) -> None:
    """Print what the owners know of aggregates, as their snapshots have it, in order of their ids."""
    given = {"limit": limit, "after": after, **({} if module is None else {"module": module}), **({} if id is None else {"id": id})}
    async with connect() as bus:
        found: Any = await bus.call_module(HUB, "state", given)
    if not found["complete"]:
        frame.progress(f"Partitions that did not answer: {', '.join(map(str, found['missingPartitions']))}")
    if found["next"] is not None and id is None:
        frame.progress(f"{len(found['aggregates'])} of {found['total']}; the others with --after {found['next']}")
    rows = [(each["id"], each["module"], each["kind"], frame.json_text(each["state"])) for each in found["aggregates"]]
    frame.say(found, as_json=as_json, text=lambda: frame.table(rows, ["id", "module", "kind", "state"]))


@frame.command
async def checksum(
    module: Module = None,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="Read the whole log as well, and compare: it says what the owners are to know.")
    ] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """Print one number for each module and partition: owners that know the same have the same.

    Exit code 1 if a partition is silent, or, with --from-log, if an owner does not know what the log says; that takes 0.1 ms a record.
    """
    from services.processes.modules_log import ModulesLog  # it loads the modules, which other commands do without

    async with connect() as bus:
        log = await ModulesLog.begin(bus) if from_log else None
        found = await _checksums(bus, module)
        rows = (
            found["checksums"] if log is None else [row for row in await log.compare(found["checksums"]) if module in (None, row["module"])]
        )
    silent = set(found["missingPartitions"])
    rows = [row for row in rows if row["partition"] not in silent]
    told = found if log is None else {**found, "checksums": rows}
    columns = ["partition", "module", "aggregates", "checksum"]
    cells = [tuple(str(row[column]) for column in columns) for row in rows]
    if log is not None:
        columns.append("log")
        cells = [(*cell, "same" if row["same"] else "differs") for cell, row in zip(cells, rows, strict=True)]
    frame.say(told, as_json=as_json, text=lambda: frame.table(cells, columns))
    if silent:
        frame.progress(f"Partitions that did not answer: {', '.join(map(str, sorted(silent)))}")
    if silent or not all(row.get("same", True) for row in rows):
        raise typer.Exit(frame.EXIT_REFUSED)


@frame.command
async def rebuild(
    reason: Annotated[str, typer.Option(help="Why; it is on record.")] = "",
    timeout: Annotated[str, typer.Option(help="How long to wait until all partitions serve again: 30s, 5m.")] = "5m",
    as_json: frame.JsonFlag = False,
) -> None:
    """Have the owners throw away what they know and fold it from the log alone; print whether it is what they knew before.

    The partitions decide nothing meanwhile. What is asked for in between changes the states: run it when little happens. Exit code 1 if
    something differs.
    """
    async with connect() as bus:
        before = await _checksums(bus, None)
        await bus.call_module(HUB, "rebuild", {"reason": reason})
        try:
            async with asyncio.timeout(parse_duration_ms(timeout) / 1000):
                after = await _once_complete(bus)
        except TimeoutError:
            raise Unavailable("module.silent", f"Not all partitions serve again after {timeout}.", advice="See `mplp status`.") from None
    rows = _compared(before["checksums"], after["checksums"])
    frame.say(
        rows,
        as_json=as_json,
        text=lambda: frame.table(
            [(str(row["partition"]), row["module"], str(row["aggregates"]), "same" if row["same"] else "differs") for row in rows],
            ["partition", "module", "aggregates", "from the log"],
        ),
    )
    if not all(row["same"] for row in rows):
        raise typer.Exit(frame.EXIT_REFUSED)


async def _checksums(bus: Bus, module: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {"limit": PAGE} if module is None else {"limit": PAGE, "module": module}
    found: dict[str, Any] = await bus.call_module(HUB, "checksum", given)
    return found


async def _once_complete(bus: Bus) -> dict[str, Any]:
    while True:
        try:
            found = await _checksums(bus, None)
        except Unavailable:
            continue
        if found["complete"]:
            return found
        await asyncio.sleep(AGAIN_S)


def _compared(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is known of each module and partition from the log, and whether it was known before."""
    known = {each["place"]: each for each in before}
    found = {each["place"]: each for each in after}
    rows = []
    for place in sorted(known.keys() | found.keys()):
        now = found.get(place)
        one = now or known[place]
        rows.append(
            {
                "partition": one["partition"],
                "module": one["module"],
                "aggregates": now["aggregates"] if now else 0,
                "checksum": now["checksum"] if now else None,
                "before": known[place]["checksum"] if place in known else None,
                "same": place in known and now is not None and known[place]["checksum"] == now["checksum"],
            }
        )
    return rows
