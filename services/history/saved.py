"""Saved queries: files of SQL with a head that says what they answer and what their parameters are. Blocks on files, briefly.

A file is named after its query, `slowest-steps.sql`, and begins with a comment of YAML, so that it is SQL for every other tool, too:

    -- title: Which steps take longest?
    -- description: The steps with the highest percentiles.
    -- parameters:
    --   limit: {default: 10, description: How many.}
    SELECT … LIMIT {limit:UInt32}

A parameter that the head gives no default for has to be given. Its type stands in the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.history.nearest import nearest
from streams.errors import BackboneError, InvalidInput, NotFound

#: Longest file, bytes.
FILE_BYTES_MAX = 64 * 1024
#: Most files of a folder.
FILES_MAX = 1000

_NAME = re.compile(r"\A[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_TEXT_OR_COMMENT = re.compile(r"'(?:[^'\\]|\\.|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = re.compile(r"\{\s*([A-Za-z_]\w*)\s*:\s*([^}]+?)\s*\}")


class _Parameter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    description: str = ""
    default: bool | int | float | str | list[bool | int | float | str | None] | None = None


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1, max_length=200)
    description: str = Field("", max_length=4000)
    parameters: dict[str, _Parameter] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedParameter:
    """A parameter of a saved query."""

    name: str
    type: str  #: ClickHouse's
    description: str
    required: bool
    default: Any

    def to_dict(self) -> dict[str, Any]:
        """As people and programs get it: without `default` where it has to be given."""
        about = {"name": self.name, "type": self.type, "description": self.description, "required": self.required}
        return about if self.required else {**about, "default": self.default}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedQuery:
    """A query with a name."""

    name: str
    title: str
    description: str
    sql: str
    parameters: tuple[SavedParameter, ...]
    own: bool  #: of the user's folder, not one of the ready ones

    def to_dict(self) -> dict[str, Any]:
        """As people and programs get it."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "own": self.own,
            "parameters": [parameter.to_dict() for parameter in self.parameters],
            "sql": self.sql,
        }

    def filled(self, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Text and parameters, defaults filled in. Raises `InvalidInput` (`sql.parameter`)."""
        names = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in names:
                advice = nearest(name, names, "Did you mean {}?") or (f"It has: {', '.join(names)}." if names else "It has none.")
                raise InvalidInput("sql.parameter", f"{self.name} has no parameter {name}.", pointer=f"/parameters/{name}", advice=advice)
        missing = [parameter for parameter in self.parameters if parameter.required and parameter.name not in given]
        if missing:
            first = missing[0]
            raise InvalidInput(
                "sql.parameter",
                f"The parameter {first.name} ({first.type}) of {self.name} has no value.",
                pointer=f"/parameters/{first.name}",
                advice=f"{first.description or first.name}: give it with --param {first.name}=value.",
            )
        return self.sql, {**{p.name: p.default for p in self.parameters if not p.required}, **given}


def parse(name: str, text: str, *, own: bool) -> SavedQuery:
    """A file's query. Raises `InvalidInput` (`query.invalid`)."""
    if not _NAME.match(name):
        raise InvalidInput("query.invalid", f"{name} is no name of a query: small letters, digits and hyphens between them.")
    lines = text.splitlines()
    count = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    try:
        head = _Head.model_validate(yaml.safe_load("\n".join(line[2:].removeprefix(" ") for line in lines[:count])))
    except (yaml.YAMLError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InvalidInput("query.invalid", f"The head of {name} cannot be read: {' '.join(why.split())[:300]}") from error
    sql = "\n".join(lines[count:]).strip()
    types = dict(reversed(_PARAMETER.findall(_TEXT_OR_COMMENT.sub(" ", sql))))
    strange = sorted(head.parameters.keys() - types.keys())
    if not sql or strange:
        raise InvalidInput("query.invalid", f"{name} has no text." if not sql else f"The text of {name} has no parameter {strange[0]}.")
    order = [*head.parameters, *sorted(types.keys() - head.parameters.keys())]
    return SavedQuery(
        name=name,
        title=head.title,
        description=" ".join(head.description.split()),
        sql=sql,
        parameters=tuple(_parameter(parameter, types[parameter], head.parameters.get(parameter)) for parameter in order),
        own=own,
    )


def _parameter(name: str, kind: str, about: _Parameter | None) -> SavedParameter:
    required = about is None or "default" not in about.model_fields_set
    return SavedParameter(
        name=name, type=kind, description=about.description if about else "", required=required, default=about.default if about else None
    )


@cache
def ready() -> Mapping[str, SavedQuery]:
    """The queries that come along, by name."""
    found = [file for file in files("services.history.queries_ready").iterdir() if file.name.endswith(".sql")]
    queries = [parse(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"), own=False) for file in found]
    return {query.name: query for query in sorted(queries, key=lambda query: query.name)}


class SavedQueries:
    """The ready ones, and those of a folder, which win; a change in the folder counts at once."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None

    def all(self) -> Sequence[dict[str, Any]]:
        """All of them, ordered by name, without their texts; one that cannot be read has a `fault` instead."""
        found: dict[str, dict[str, Any]] = {name: query.to_dict() for name, query in ready().items()}
        for name, path in self._own():
            try:
                found[name] = self._read(name, path).to_dict()
            except BackboneError as error:
                found[name] = {"name": name, "title": "", "description": "", "own": True, "parameters": [], "fault": error.message}
        return [{key: value for key, value in found[name].items() if key != "sql"} for name in sorted(found)]

    def find(self, name: str) -> SavedQuery:
        """One of them. Raises `NotFound` (`query.unsaved`), `InvalidInput` (`query.invalid`)."""
        own = dict(self._own())
        if name in own:
            return self._read(name, own[name])
        query = ready().get(name)
        if query is None:
            advice = nearest(name, {*ready(), *own}, "Did you mean {}?")
            raise NotFound("query.unsaved", f"There is no saved query {name}.", advice=advice or "`mplp query --list` lists them.")
        return query

    def _own(self) -> Iterator[tuple[str, Path]]:
        if self._folder is None or not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.sql"))[:FILES_MAX]:
            yield path.stem, path

    @staticmethod
    def _read(name: str, path: Path) -> SavedQuery:
        try:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise InvalidInput("query.invalid", f"{path.name} is larger than {FILE_BYTES_MAX} bytes.")
            return parse(name, path.read_text(encoding="utf-8"), own=True)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput("query.invalid", f"{path.name} cannot be read: {error}.") from error
