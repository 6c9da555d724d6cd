"""`mplp history export`: the tables as Parquet files by day, resumable, each whole or not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from services.cli import frame
from services.cli.history_calls import asked, streamed
from services.cli.moments import moment
from services.processes import offline
from streams.errors import InvalidInput, Refused
from streams.records import iso, now

MANIFEST = "manifest.json"
#: Ends the name of a file that is being written.
PARTIAL = ".partial"
#: A day is asked for again if rows came to it while it was written.
TRIES = 3
DAY = timedelta(days=1)


@frame.command
async def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the files; made if need be.")],
    table: Annotated[
        list[str] | None, typer.Option("--table", metavar="TABLE", help="Only this table; may be repeated.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="First day (UTC, of Kafka's time): a date, 30d, yesterday.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="End, exclusive. Default: today, which is not over. now: with today so far.")
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Write the history's tables as Parquet: DIR/TABLE/DAY.parquet, and DIR/manifest.json with rows, offsets and checksums of each.

    A file is there whole or not at all, and has exactly the rows that the table has. Run again, it writes what is new or has changed.
    """
    first, end = (None if since is None else _day(since)), _end(until)
    tables = table or list((await asked("/v1/history/export"))["tables"])
    folder = _Folder(out)
    bounds = {name: value for name, value in (("from", first), ("to", end)) if value is not None}
    written: list[dict[str, Any]] = []
    kept = 0
    for name in tables:
        listing = await asked(f"/v1/history/export/{name}", bounds)
        if listing["behind"]:
            frame.progress(f"The history is {listing['behind']} records behind the topics.")
        for day in listing["days"]:
            if folder.has(name, day):
                kept += 1
                continue
            frame.progress(f"{name} {day['day']}: {day['rows']:,} rows")
            written.append(await _write(folder, name, day))
    report = {
        "out": str(out), "files": written, "kept": kept, "rows": sum(each["rows"] for each in written),
        "bytes": sum(each["bytes"] for each in written),
    }  # fmt: skip
    frame.say(report, as_json=as_json, text=lambda: "\n".join(lines(report)))


def _day(text: str) -> str:
    return moment(text).astimezone(UTC).date().isoformat()


def _end(text: str | None) -> str:
    """The day before which it ends: one that has begun counts if an instant in it is named."""
    if text is None:
        return now().date().isoformat()
    instant = moment(text)
    midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight if instant == midnight else midnight + DAY).date().isoformat()


async def _write(folder: _Folder, table: str, day: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a day. Raises `Refused` (`export.moving`, `file.unwritable`), and what the gateway says."""
    name = str(day["day"])
    for _ in range(TRIES):
        partial, size, checksum = await folder.receive(table, name)
        found = offline.held(partial)
        if (found.rows, str(found.places)) == (day["rows"], day["places"]):
            return folder.keep(table, day, partial, size, checksum)
        # Rows came to that day meanwhile, or were dropped by retention.
        partial.unlink()
        listing = await asked(f"/v1/history/export/{table}", {"from": name, "to": name, "inclusive": "true"})
        if not listing["days"]:
            break
        (day,) = listing["days"]
    raise Refused("export.moving", f"{table} of {name} changes while it is written.", advice="Export it when the day is over.")


@dataclass(slots=True)
class _Folder:
    """The folder of an export, with its manifest."""

    path: Path

    def __post_init__(self) -> None:
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def manifest(self) -> dict[str, Any]:
        """What is said to be there. Raises `InvalidInput` (`export.manifest`)."""
        try:
            found = orjson.loads((self.path / MANIFEST).read_bytes())
            if isinstance(found, dict) and isinstance(found.get("tables"), dict):
                return found
        except FileNotFoundError:
            return {"format": 1, "tables": {}}
        except (OSError, ValueError):
            pass  # said below
        raise InvalidInput("export.manifest", f"{self.path / MANIFEST} is no manifest of an export.", advice="Take another folder.")

    def has(self, table: str, day: Mapping[str, Any]) -> bool:
        """Whether a day was written, and the table still has the same of it."""
        entry = self.manifest()["tables"].get(table, {}).get(day["day"])
        if entry is None or (entry["rows"], entry["digest"]) != (day["rows"], day["digest"]):
            return False
        file = self.path / str(entry["file"])
        return file.is_file() and file.stat().st_size == int(entry["bytes"])

    async def receive(self, table: str, day: str) -> tuple[Path, int, str]:
        """Takes a day's file in under another name: where it is, bytes, SHA-256. Raises `Refused` (`file.unwritable`)."""
        partial = self.path / table / f"{day}.parquet{PARTIAL}"
        checksum, size, done = hashlib.sha256(), 0, False
        with _writing(partial):
            partial.parent.mkdir(exist_ok=True)
            try:
                with partial.open("wb") as file:
                    async for chunk in streamed(f"/v1/history/export/{table}/{day}"):
                        file.write(chunk)
                        checksum.update(chunk)
                        size += len(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                done = True
            finally:
                if not done:
                    partial.unlink(missing_ok=True)
        return partial, size, checksum.hexdigest()

    def keep(self, table: str, day: Mapping[str, Any], partial: Path, size: int, checksum: str) -> dict[str, Any]:
        """Gives the file its name, and notes it."""
        name = f"{table}/{day['day']}.parquet"
        entry = {
            "file": name, "rows": day["rows"], "bytes": size, "sha256": checksum, "digest": day["digest"], "offsets": day["offsets"],
            "written_at": iso(now()),
        }  # fmt: skip
        manifest = self.manifest()
        manifest["tables"].setdefault(table, {})[day["day"]] = entry
        with _writing(self.path / MANIFEST):
            partial.replace(self.path / name)
            draft = self.path / f"{MANIFEST}{PARTIAL}"
            draft.write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
            draft.replace(self.path / MANIFEST)
        return {"table": table, "day": day["day"], **entry}


class _writing:
    """Failures to write are ours: `Refused` (`file.unwritable`)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise Refused("file.unwritable", f"{self._path} cannot be written: {error.strerror}.") from error


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads."""
    files: Sequence[Mapping[str, Any]] = report["files"]
    if files:
        rows = [[each["file"], f"{each['rows']:,}", f"{each['bytes']:,}"] for each in files]
        yield frame.table(rows, ("file", "rows", "bytes"))
    yield f"{len(files):,} files written, {report['kept']:,} were there already; {report['rows']:,} rows in {report['out']}"
