"""`mplp query`: read-only SQL over the history, asked of the running gateway."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import httpx
import orjson
import typer

from services.cli import frame
from streams.errors import BackboneError, InvalidInput, Unavailable
from streams.settings import Settings

#: Longer than the longest query and the wait for the sink.
TIMEOUT_S = 90.0
BEHIND_HEADER = "X-Mplp-Behind"

app = typer.Typer(no_args_is_help=True, help="Ask the history in SQL, read-only.")


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


@app.command("query")
@frame.command
async def query(
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT; also SHOW TABLES and DESCRIBE TABLE name. Parameters: {name:Type}.")
    ],
    param: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Value of a parameter; may be repeated.")] = None,
    format: Annotated[Format, typer.Option("--format", help="How the answer is written.")] = Format.TABLE,
    stale: Annotated[bool, typer.Option("--stale", help="Do not wait for the history to catch up with the topics.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """Ask the history in SQL, read-only. Waits until the history has reached the topics' ends of now, at most 5 s.

    Example: mplp query "SELECT type, count() AS n FROM system_events GROUP BY type ORDER BY n DESC"
    """
    rows, behind = await ask(Settings(), sql, parameters_of(param or []), stale=stale)
    if behind:
        frame.progress(f"The history is {behind} records behind the topics.")
    text = render(rows, Format.JSON if as_json else format)
    if text:
        frame.write(text)


def parameters_of(texts: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as parameters; ClickHouse reads the value by the parameter's type. Raises `InvalidInput` (`query.parameter`)."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise InvalidInput("query.parameter", f"{text!r} is not of the form name=value.")
        found[name] = value
    return found


async def ask(settings: Settings, sql: str, parameters: Mapping[str, Any], *, stale: bool) -> tuple[list[dict[str, Any]], int]:
    """The answer's rows, and how many records the history was behind. Raises what the gateway says, `Unavailable` if it does not answer."""
    url = settings.http_url()
    body = {"sql": sql, "parameters": dict(parameters), "stale": stale}
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            response = await client.post(f"{url}/v1/query", json=body, headers=_authorization(settings))
    except httpx.HTTPError as error:
        raise Unavailable(
            "gateway.unreachable", f"The gateway at {url} does not answer ({type(error).__name__}).", advice="Start it with `mplp up`."
        ) from error
    if response.is_error:
        raise _problem(response)
    behind = response.headers.get(BEHIND_HEADER, "0")
    return orjson.loads(response.content), int(behind) if behind.isdecimal() else 0


def _authorization(settings: Settings) -> dict[str, str]:
    secret = settings.api_key.get_secret_value()
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def _problem(response: httpx.Response) -> BackboneError:
    """The gateway's problem details as an error."""
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    kind = Unavailable if response.status_code == 503 and not str(problem.get("code", "")).startswith("sql.") else InvalidInput
    code = str(problem.get("code", f"http.{response.status_code}"))
    message = str(problem.get("detail") or problem.get("message") or problem.get("title") or response.reason_phrase)
    return kind(code, message, pointer=problem.get("pointer"), advice=problem.get("advice"))


def render(rows: Sequence[Mapping[str, Any]], format: Format) -> str:
    """The rows as text of a format; empty where there is nothing to write."""
    columns = list(rows[0]) if rows else []
    match format:
        case Format.JSON:
            return frame.json_text(rows)
        case Format.JSONL:
            return "\n".join(map(frame.json_text, rows))
        case Format.CSV:
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            if columns:
                writer.writerow(columns)
            writer.writerows([[_cell(row[column]) for column in columns] for row in rows])
            return out.getvalue().removesuffix("\n")
        case Format.TABLE:
            if not rows:
                return "(no rows)"
            return frame.table([[_printable(_cell(row[column])) for column in columns] for row in rows], columns)


def _cell(value: Any) -> str:
    """A value in a table or CSV: texts as they are, null as nothing, the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else frame.json_text(value)


def _printable(text: str) -> str:
    """One line of a terminal: control characters are shown, never sent."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
