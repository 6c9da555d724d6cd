"""`mplp query`: read-only SQL over the history, asked of the running gateway."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer

from services.cli import frame, query_table
from services.cli.query_progress import following
from streams.bus.sql import Question, Reply, Sql
from streams.errors import BackboneError, InvalidInput, Refused
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Ask the history in SQL, read-only.")


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"


#: Format of a file by the end of its name.
SUFFIXES: Mapping[str, Format] = {
    ".json": Format.JSON, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".csv": Format.CSV, ".arrow": Format.ARROW,
    ".arrows": Format.ARROW, ".parquet": Format.PARQUET, ".txt": Format.TABLE,
}  # fmt: skip


@app.command("query")
@frame.command
async def query(
    sql: Annotated[
        str | None,
        typer.Argument(metavar="SQL", help="One SELECT; also SHOW TABLES, DESCRIBE, EXPLAIN. Parameters: {name:Type}. -: standard input."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the SQL from a file.")] = None,
    saved: Annotated[str | None, typer.Option("--saved", metavar="NAME", help="Ask a saved query.")] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="List the saved queries with their parameters; with --saved show that one.")
    ] = False,
    param: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Value of a parameter; may be repeated.")] = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="How the answer is written. Default: table, or by the name of the file of --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the answer to a file, whole or not at all.")] = None,
    stale: Annotated[bool, typer.Option("--stale", help="Do not wait for the history to catch up with the topics.")] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Say on stderr how far it is. Default: on a terminal.")
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Ask the history in SQL, read-only. Waits until the history has reached the topics' ends of now, at most 5 s. Ctrl-C ends the query.

    Example: mplp query "SELECT type, count() AS n FROM system_events GROUP BY type ORDER BY n DESC"
    """
    settings = Settings()
    asking = Sql(settings)
    try:
        if listing:
            await _list(asking, saved, as_json=as_json)
            return
        form = Format.JSON if as_json else format or (SUFFIXES.get(out.suffix.lower(), Format.JSON) if out else Format.TABLE)
        if form in (Format.ARROW, Format.PARQUET) and out is None and sys.stdout.isatty():
            raise InvalidInput("query.out", f"{form.capitalize()} is not for a terminal.", advice="Write it to a file with --out FILE.")
        question = Question(
            sql=None if saved else _text(sql, file),
            saved=saved,
            parameters=parameters_of(param or []),
            format="compact" if form is Format.TABLE else form,
            stale=stale,
        )
        await _answer(asking, question, form, out, tells=sys.stderr.isatty() if progress is None else progress)
    finally:
        await asking.close()


def _text(sql: str | None, file: Path | None) -> str:
    """The text of the query. Raises `InvalidInput` (`query.one-of`, `file.unreadable`)."""
    if (sql is not None) == (file is not None):
        if sql is None and not sys.stdin.isatty():
            return sys.stdin.read()
        raise InvalidInput("query.one-of", "A query is an SQL text, a --file with one, or a --saved one.")
    if file is None:
        return sys.stdin.read() if sql == "-" else str(sql)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("file.unreadable", f"{file} cannot be read: {error}.") from error


def parameters_of(texts: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as parameters; ClickHouse reads the value by the parameter's type. Raises `InvalidInput` (`query.parameter`)."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise InvalidInput("query.parameter", f"{text!r} is not of the form name=value.")
        found[name] = value
    return found


async def _answer(asking: Sql, question: Question, form: Format, out: Path | None, *, tells: bool) -> None:
    try:
        async with following(asking, question.query_id, tells=tells), asking.ask(question) as reply:
            if reply.behind:
                frame.progress(f"The history is {reply.behind} records behind the topics.")
            with _opened(out) as target:
                width = shutil.get_terminal_size().columns if out is None and sys.stdout.isatty() else None
                async for part in _rendered(reply, form, width):
                    target.write(part)
                    target.flush()
    except BackboneError as error:
        _point(question.sql, error)
        raise


async def _rendered(reply: Reply, form: Format, width: int | None) -> AsyncIterator[bytes]:
    """The bytes that are written."""
    match form:
        case Format.TABLE:
            async for line in table(reply.lines(), width):
                yield line.encode() + b"\n"
        case Format.JSON:
            async for chunk in reply.chunks():
                yield chunk
            yield b"\n"
        case _:
            async for chunk in reply.chunks():
                yield chunk


async def table(answer: AsyncIterator[bytes], width: int | None) -> AsyncIterator[str]:
    """The lines of a table, of an answer in compact lines; the first rows decide the widths."""
    names, types = orjson.loads(await anext(answer)), orjson.loads(await anext(answer))
    seen: list[list[Any]] = []
    shape: query_table.Shape | None = None
    count = 0
    async for line in answer:
        row = orjson.loads(line)
        count += 1
        if shape is not None:
            for text in query_table.lines(shape, [row], first=count - 1, width=width):
                yield text
            continue
        seen.append(row)
        if len(seen) == query_table.ROWS_SEEN:
            shape = query_table.shape_of(names, types, seen, width)
            for text in (*query_table.head(shape), *query_table.lines(shape, seen, width=width)):
                yield text
    if shape is None:
        shape = query_table.shape_of(names, types, seen, width)
        for text in (*query_table.head(shape), *query_table.lines(shape, seen, width=width)):
            yield text
    if count == 0:
        yield "(no rows)"


@contextlib.contextmanager
def _opened(out: Path | None) -> Any:
    """Where bytes go: standard output, or a file that is there when all of it is. Raises `Refused` (`file.unwritable`)."""
    if out is None:
        yield _standard_output()
        return
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        done = False
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, out)
            done = True
        finally:
            if not done:
                os.unlink(name)
    except OSError as error:
        raise Refused("file.unwritable", f"{out} cannot be written: {error.strerror}.") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _standard_output() -> BinaryIO:
    return sys.stdout.buffer


def _point(sql: str | None, error: BackboneError) -> None:
    """Shows the line that cannot be parsed, and where."""
    place = query_table.place_of(error.message) if error.code == "sql.syntax" and sql else None
    if place is not None and sql is not None:
        for line in query_table.pointed(sql, *place):
            frame.progress(line)


async def _list(asking: Sql, name: str | None, *, as_json: bool) -> None:
    if name is not None:
        found = await asking.get(f"/v1/queries/{name}")
        frame.say(found, as_json=as_json, text=lambda: _described(found))
        return
    items = (await asking.get("/v1/queries"))["items"]
    frame.say(items, as_json=as_json, text=lambda: frame.table([_row(item) for item in items], ["name", "answers", "parameters"]))


def _row(item: Mapping[str, Any]) -> list[str]:
    parameters = ", ".join(_parameter(parameter) for parameter in item["parameters"])
    return [item["name"], item["title"] or f"cannot be read: {item.get('fault')}", parameters]


def _parameter(parameter: Mapping[str, Any]) -> str:
    default = parameter.get("default")
    return parameter["name"] if parameter["required"] else f"{parameter['name']}={'' if default is None else default}"


def _described(found: Mapping[str, Any]) -> str:
    parts = [found["title"], found["description"], ""]
    rows = [[parameter["name"], parameter["type"], _parameter(parameter), parameter["description"]] for parameter in found["parameters"]]
    if rows:
        parts += [frame.table(rows, ["parameter", "type", "default", "meaning"]), ""]
    return "\n".join([*(part for part in parts if part is not None), found["sql"]])
