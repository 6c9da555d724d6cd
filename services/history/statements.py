"""What can be asked besides SELECT: SHOW TABLES, DESCRIBE and EXPLAIN. Pure.

None of them runs as it was written: each becomes a query of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from services.history import guard
from services.history.tables import PARAMETERISED_VIEWS, readable
from streams.errors import Denied, InvalidInput

_LEAD = r"\A(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
_DESCRIBE = re.compile(
    _LEAD + r"(?:DESC(?:RIBE)?|SHOW\s+COLUMNS\s+(?:FROM|IN))\s+(?:TABLE\s+)?(?:`?(\w+)`?\s*\.\s*)?`?(\w+)`?\s*;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
_DESCRIBE_QUERY = re.compile(_LEAD + r"DESC(?:RIBE)?\s+(?:TABLE\s+)?\((.*)\)\s*;?\s*\Z", re.IGNORECASE | re.DOTALL)
#: Kinds of EXPLAIN that only say how a query would be answered, and their settings.
_EXPLAINS = frozenset({"EXPLAIN", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE"})
_EXPLAIN_SETTINGS = frozenset(
    {"indexes", "projections", "actions", "header", "description", "json", "sorting", "keep_logical_steps", "pretty", "compact", "graph",
     "run_passes", "dump_passes", "dump_ast", "dump_tree", "oneline"}
)  # fmt: skip
_NO_VALUE = frozenset({None, False, ""})


def described(sql: str, database: str) -> str | None:
    """`DESCRIBE [TABLE] name` as a query of ours; None for anything else. Raises `InvalidInput` (`sql.unknown-table`, `sql.parameter`)."""
    match = _DESCRIBE.match(sql)
    if match is None:
        return None
    if match[1] not in (None, database) or match[2] not in (*readable(), *PARAMETERISED_VIEWS):
        raise guard.unknown_table(".".join(filter(None, match.groups())), {*readable(), *PARAMETERISED_VIEWS})
    if match[2] in PARAMETERISED_VIEWS:
        raise InvalidInput(
            "sql.parameter", f"{match[2]} is a view with parameters.", advice=f"DESCRIBE (SELECT * FROM {match[2]}(parameter = 'value'))"
        )
    return f"SELECT name, type, comment FROM system.columns WHERE database = '{database}' AND table = '{match[2]}' ORDER BY position"


def inner_of_describe(sql: str) -> str | None:
    """The query in `DESCRIBE (SELECT …)`; None for anything else. It is to be checked by itself."""
    match = _DESCRIBE_QUERY.match(sql)
    return match[1] if match else None


def tables_listed(tree: Mapping[str, Any], database: str) -> str:
    """`SHOW TABLES [[NOT] [I]LIKE 'pattern']` as a query of ours. Raises `Denied` (`sql.read-only`) where it asks for more."""
    like, rest = tree.get("like"), {name for name, value in tree.items() if isinstance(value, Mapping | list) or value not in _NO_VALUE}
    if rest - {"type", "like", "not_like", "case_insensitive_like"} or not isinstance(like, str | None):
        raise Denied("sql.read-only", "SHOW TABLES takes LIKE and nothing else.", advice=guard.ADVICE)
    condition = ""
    if like is not None:
        operator = f"{'NOT ' if tree.get('not_like') else ''}{'ILIKE' if tree.get('case_insensitive_like') else 'LIKE'}"
        condition = f" WHERE name {operator} unhex('{like.encode().hex()}')"
    named = "[" + ", ".join(f"'{name}'" for name in (*readable(), *PARAMETERISED_VIEWS)) + "]"
    parts = "[" + ", ".join(f"'{name}'" for name in PARAMETERISED_VIEWS) + "]::Array(String)"
    kind = f"multiIf(has({parts}, name), 'view with parameters', endsWith(engine, 'View'), 'view', 'table') AS kind"
    found = f"SELECT name, engine, total_rows FROM system.tables WHERE database = '{database}' AND has({named}, name)"
    return f"SELECT name, {kind}, total_rows AS rows FROM ({found}){condition} ORDER BY indexOf({named}, name)"


def explained(tree: Mapping[str, Any]) -> Any:
    """The query that `EXPLAIN …` is about, to be checked by itself. Raises `Denied` (`sql.read-only`, `sql.setting`)."""
    kind = str(tree.get("kind"))
    if kind not in _EXPLAINS or not isinstance(tree.get("query"), Mapping):
        raise Denied("sql.read-only", f"{kind} cannot be asked.", advice="EXPLAIN [PLAN | PIPELINE | ESTIMATE | SYNTAX] SELECT …")
    for name, value in tree.items():
        if name not in ("type", "kind", "query", "settings") and (isinstance(value, Mapping | list) or value not in _NO_VALUE):
            raise Denied("sql.read-only", "EXPLAIN takes a kind, its settings and a SELECT, and nothing else.")
    for change in (tree.get("settings") or {}).get("changes") or ():
        value = (change.get("value") or {}).get("value")
        if change.get("name") not in _EXPLAIN_SETTINGS or value not in (0, 1):
            raise Denied("sql.setting", f"{change.get('name')} is no setting of EXPLAIN that is 0 or 1.")
    return tree["query"]
