"""What a query may do, decided on the tree that ClickHouse's own parser makes of it. Pure.

Everything is refused that is not known to be harmless: kinds of nodes, functions (`functions.py`), tables, table functions,
settings, output clauses. It is one of several nets: the connection is read-only, the tree is that of the text that is run, which
ClickHouse wrote itself of what was asked, and it runs inside of `SELECT * FROM (…)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.history.functions import is_allowed
from services.history.nearest import nearest
from streams.errors import Denied, InvalidInput

ADVICE = "SHOW TABLES, DESCRIBE TABLE name and EXPLAIN SELECT … are answered too."
#: Longest query, characters.
SQL_CHARACTERS_MAX = 64 * 1024
#: Deepest tree.
DEPTH_MAX = 400
#: Times that common table expressions may be read, each reading of one counted with those inside it: ClickHouse copies them.
EXPANSIONS_MAX = 1000

_QUERIES = frozenset({"SelectWithUnionQuery", "SelectQuery", "SelectIntersectExceptQuery"})
_NODES = _QUERIES | {
    "Subquery", "WithElement", "ExpressionList", "Asterisk", "QualifiedAsterisk", "Literal", "Identifier", "Function",
    "TableIdentifier", "TablesInSelectQuery", "TablesInSelectQueryElement", "TableExpression", "TableJoin", "ArrayJoin",
    "OrderByElement", "StorageOrderByElement", "QueryParameter", "WindowDefinition", "WindowListElement",
    "ColumnsTransformerList", "ColumnsExceptTransformer", "ColumnsReplaceTransformer", "ColumnsReplaceTransformerReplacement",
    "ColumnsApplyTransformer", "ColumnsRegexpMatcher", "ColumnsListMatcher", "QualifiedColumnsRegexpMatcher",
    "QualifiedColumnsListMatcher", "InterpolateElement", "SampleRatio", "GroupingSets", "DataType", "NameTypePair",
    "ObjectTypeArgument",
}  # fmt: skip
#: Clauses that change what a query does beyond its answer.
_CLAUSES = {
    "settings": "SETTINGS", "settings_ast": "SETTINGS", "out_file": "INTO OUTFILE", "format_ast": "FORMAT", "format": "FORMAT",
    "compression": "COMPRESSION", "compression_level": "COMPRESSION",
}  # fmt: skip
_TABLE_FUNCTIONS = frozenset({"numbers", "generate_series", "generateSeries", "values", "SQLStandardValues"})
_IN = frozenset({"in", "notin", "globalin", "globalnotin", "nullin", "notnullin", "globalnullin", "globalnotnullin"})
_IN_ALL = _IN | {name + "ignoreset" for name in _IN}
#: Table functions whose first argument may say what their columns are, as CREATE TABLE does.
_STRUCTURED = frozenset({"values", "SQLStandardValues"})
#: Words by which such a text holds expressions, which no tree shows: `values('a Int8, b String ALIAS file(…)', 1)`.
_COLUMN_CLAUSES = re.compile(
    r"\b(?:DEFAULT|MATERIALIZED|ALIAS|EPHEMERAL|AUTO_INCREMENT|CODEC|TTL|STATISTICS|COMMENT|SETTINGS|PRIMARY|CONSTRAINT|INDEX|PROJECTION)\b",
    re.IGNORECASE,
)
#: Functions whose first argument is the name of an aggregate function.
_NAMING = frozenset({"arrayreduce", "arrayreduceinranges"})
#: Functions that take the name of a type, and which argument it is (-1: the last).
_TYPED: Mapping[str, int] = {
    "cast": 1, "_cast": 1, "accuratecast": 1, "accuratecastornull": 1, "accuratecastordefault": 1, "reinterpret": 1,
    "jsonextract": -1, "jsonextractcaseinsensitive": -1, "jsonextractkeysandvalues": -1, "jsonextractkeysandvaluescaseinsensitive": -1,
    "defaultvalueoftypename": 0, "variantelement": 1, "dynamicelement": 1, "kqlparametercast": 1,
}  # fmt: skip
#: A value of such a type is read from bytes that anyone can make up, by code that trusts them.
_STATES = "aggregatefunction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What may be named."""

    database: str
    tables: frozenset[str]  #: tables and views
    views: frozenset[str] = frozenset()  #: parameterised views, called like table functions
    functions: frozenset[str]  #: lower case
    known: frozenset[str] = frozenset()  #: all functions that the engine has, lower case: what is none of them is a slip of the pen


@dataclass(slots=True)
class Found:
    """What a checked query names."""

    tables: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)


def check(tree: Any, allowed: Allowed) -> Found:
    """Passes if the tree (`parseQueryToJSON`) only reads what is allowed.

    Raises `Denied` (`sql.read-only`, `sql.setting`, `sql.format`, `sql.function`, `sql.table-function`) and `InvalidInput`
    (`sql.unknown-table`, `sql.unknown-function`, `sql.parameter`, `sql.too-deep`).
    """
    if not isinstance(tree, Mapping) or tree.get("type") not in _QUERIES:
        kind = str(tree.get("type", "?")) if isinstance(tree, Mapping) else "?"
        raise Denied("sql.read-only", f"Only SELECT can be asked, this is a {kind}.", advice=ADVICE)
    walker = _Walker(allowed)
    walker.walk(tree, {}, 0)
    return walker.found


class _Walker:
    """`names`, everywhere: the common table expressions in scope, and how often each reads another when it is read once."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._reads = 0
        self._aliases: frozenset[str] = frozenset()
        self.found = Found()

    def walk(self, node: Any, names: Mapping[str, int], depth: int) -> None:
        """Checks a node and all below it."""
        if depth > DEPTH_MAX:
            raise InvalidInput("sql.too-deep", f"The query nests deeper than {DEPTH_MAX}.")
        if isinstance(node, list):
            for item in node:
                self.walk(item, names, depth + 1)
            return
        if not isinstance(node, Mapping):
            return
        kind = node.get("type")
        done: str | None = None
        if kind is not None:
            if kind == "SelectQuery" and isinstance(node.get("with"), Mapping):
                names, done = self._with(node, names, depth), "with"
            self._node(str(kind), node, names)
        elif "field_type" in node:
            return  # a literal's value
        for name, child in node.items():
            if name in _CLAUSES and child is not None:
                code = "sql.setting" if name.startswith("settings") else "sql.format" if "format" in name else "sql.read-only"
                raise Denied(code, f"{_CLAUSES[name]} is not allowed in a query.")
            if name == "func_name":
                self._function(str(child))
            if name == "table_function" and isinstance(child, Mapping):
                self._table_function(child, names, depth)
            elif name != done and (name != "value" or kind != "Literal"):
                self.walk(child, names, depth + 1)

    def _with(self, node: Mapping[str, Any], names: Mapping[str, int], depth: int) -> Mapping[str, int]:
        """Checks `WITH …`; gives the names in scope after it.

        A name is in scope only for what comes after it, so that `WITH t AS (SELECT * FROM t)` means the table t, as it does to ClickHouse;
        with `RECURSIVE` also for the second and further parts of its own union.
        """
        scope = dict(names)
        for child in _children(node["with"]):
            if not isinstance(child, Mapping) or child.get("type") != "WithElement":
                if isinstance(child, Mapping) and child.get("alias"):
                    self._aliases |= {str(child["alias"])}
                self.walk(child, scope, depth + 1)
                continue
            self._node("WithElement", child, scope)
            name, before = str(child.get("name", "")), self._reads
            body = child.get("subquery")
            parts = _union_of(body) if node.get("recursive_with") else []
            if len(parts) > 1:
                self.walk({key: value for key, value in _holder_of(body).items() if key != "list_of_selects"}, scope, depth + 1)
                self.walk(parts[0], scope, depth + 1)
                self.walk(parts[1:], {**scope, name: 1}, depth + 1)
            else:
                self.walk(body, scope, depth + 1)
            self.walk([value for key, value in child.items() if key not in ("type", "name", "subquery")], scope, depth + 1)
            scope[name] = 1 + self._reads - before
            self._reads = before
        return scope

    def _node(self, kind: str, node: Mapping[str, Any], names: Mapping[str, int]) -> None:
        if kind not in _NODES:
            raise Denied("sql.read-only", f"A query may not contain a {kind}.")
        if kind == "QueryParameter":
            self._parameter(str(node.get("name", "")), str(node.get("param_type", "")))
        elif kind == "TableIdentifier":
            self._table(node, names)
        elif kind == "Function":
            self._function(str(node.get("name", "")))
            self._arguments(str(node.get("name", "")).lower(), node, names)
        elif kind in ("Identifier", "DataType") and _STATES in str(node.get("name", "")).lower():
            raise _state()

    def _parameter(self, name: str, kind: str) -> None:
        if kind.strip().lower() == "identifier":
            raise Denied("sql.function", "A parameter gives a value, not a name.")
        if _STATES in kind.lower():
            raise _state()
        self.found.parameters.add(name)

    def _table(self, node: Mapping[str, Any], names: Mapping[str, int]) -> None:
        parts = [str(part) for part in node.get("name_parts") or [node.get("name", "")]]
        if node.get("children") or not parts[-1]:
            raise Denied("sql.unknown-table", "A table cannot be a parameter.")
        if len(parts) == 1 and parts[0] in names:
            self._read(names[parts[0]])
            return
        self._own(parts, self._allowed.tables)
        self.found.tables.add(parts[-1])

    def _own(self, parts: Sequence[str], known: Collection[str]) -> None:
        """Raises unless the name is one of ours."""
        if parts[-1] not in known or len(parts) > 2 or (len(parts) == 2 and parts[0] != self._allowed.database):
            raise unknown_table(".".join(parts), self._allowed.tables | self._allowed.views)

    def _read(self, times: int) -> None:
        self._reads += times
        if self._reads > EXPANSIONS_MAX:
            raise InvalidInput("sql.too-deep", f"The common table expressions are read more than {EXPANSIONS_MAX} times in all.")

    def _arguments(self, function: str, node: Mapping[str, Any], names: Mapping[str, int]) -> None:
        """What some functions take as text or as a bare name is checked like the thing that it names."""
        arguments = _children(node.get("arguments"))
        if function in _IN_ALL:
            for argument in arguments[1:]:
                if isinstance(argument, Mapping) and argument.get("type") == "Identifier":
                    self._right_of_in(argument, names)
        if function in _NAMING:
            self._function(_text_of(arguments, 0, "The name of the aggregate function").partition("(")[0].strip())
        if function in _TYPED and arguments and _STATES in _text_of(arguments, _TYPED[function], "The type").lower():
            raise _state()

    def _right_of_in(self, node: Mapping[str, Any], names: Mapping[str, int]) -> None:
        """A bare name at the right of IN is an alias that WITH gave to an expression, or a table."""
        name = str(node.get("name", ""))
        if node.get("children") or "." in name or name not in self._aliases:
            self._table(node, names)

    def _function(self, name: str) -> None:
        if is_allowed(name, self._allowed.functions):
            return
        if self._allowed.known and name.lower() not in self._allowed.known:
            raise InvalidInput(
                "sql.unknown-function", f"There is no function {name}.", advice=nearest(name, self._allowed.functions, "Did you mean {}?")
            )
        raise Denied("sql.function", f"The function {name} is not allowed in a query.")

    def _table_function(self, node: Mapping[str, Any], names: Mapping[str, int], depth: int) -> None:
        name = str(node.get("name", ""))
        if name not in _TABLE_FUNCTIONS:
            parts = name.split(".")
            if parts[-1] not in self._allowed.views:
                raise Denied("sql.table-function", f"The table function {name} is not allowed in a query.")
            self._own(parts, self._allowed.views)
            self.found.tables.add(parts[-1])
        if name in _STRUCTURED:
            _check_structure(_children(node.get("arguments")))
        for argument in _children(node.get("arguments")):
            # `values('a AggregateFunction(…)')`: the structure is a text.
            if _STATES in str(_literal(argument) or "").lower():
                raise _state()
        self.walk(node.get("arguments"), names, depth + 1)


def _children(node: Any) -> Sequence[Any]:
    return (node.get("children") or ()) if isinstance(node, Mapping) else ()


def _holder_of(subquery: Any) -> Mapping[str, Any]:
    """The query inside a subquery; empty if it is none."""
    inner = _children(subquery)
    return inner[0] if len(inner) == 1 and isinstance(inner[0], Mapping) else {}


def _union_of(subquery: Any) -> Sequence[Any]:
    """The parts of the union that a subquery is; fewer than two if it is none."""
    holder = _holder_of(subquery)
    return _children(holder.get("list_of_selects")) if holder.get("type") == "SelectWithUnionQuery" else ()


def _literal(node: Any) -> Any:
    value = node.get("value") if isinstance(node, Mapping) and node.get("type") == "Literal" else None
    return value.get("value") if isinstance(value, Mapping) else None


def _check_structure(arguments: Sequence[Any]) -> None:
    """Raises `Denied` unless the first argument is a row, or names and types of columns and nothing else.

    It has to stand there: a parameter or an alias may turn out to be such a text.
    """
    first = arguments[0] if arguments and isinstance(arguments[0], Mapping) else {}
    is_row = first.get("type") == "Function" and first.get("name") in ("tuple", "array")
    if first.get("type") != "Literal" and not is_row:
        raise Denied("sql.table-function", "values() begins with names and types of its columns, or with a row in parentheses.")
    text = _literal(first)
    if isinstance(text, str) and _COLUMN_CLAUSES.search(text):
        raise Denied("sql.table-function", "The columns of values() have names and types, and no expressions.")


def _text_of(arguments: Sequence[Any], index: int, what: str) -> str:
    """An argument that must be written out. Raises `Denied` if it is calculated."""
    text = _literal(arguments[index]) if -len(arguments) <= index < len(arguments) else None
    if not isinstance(text, str):
        raise Denied("sql.function", f"{what} must be written out as a text.")
    return text


def _state() -> Denied:
    return Denied("sql.function", "States of aggregate functions cannot be read from values: use -State and -Merge functions on columns.")


def unknown_table(name: str, tables: Collection[str]) -> InvalidInput:
    """The refusal of a table that is not there, or not to be asked."""
    advice = nearest(name.rpartition(".")[2], tables, "Did you mean {}?") or "There are: " + ", ".join(sorted(tables)) + "."
    return InvalidInput("sql.unknown-table", f"There is no table {name}.", advice=advice)
