"""What a query may do, decided on the tree that ClickHouse's own parser makes of it. Pure.

Everything is refused that is not known to be harmless: kinds of nodes, functions (by ClickHouse's own categories), tables,
table functions, settings, output clauses. It is one of several nets: the connection is read-only, the text that is run is
the one that ClickHouse formatted back from the checked tree, and it runs inside of `SELECT * FROM (…)`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from streams.errors import Denied, InvalidInput

ADVICE = "SHOW TABLES and DESCRIBE TABLE name are answered too."
#: Longest query, characters.
SQL_CHARACTERS_MAX = 64 * 1024
#: Deepest tree.
DEPTH_MAX = 400

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
_TABLE_FUNCTIONS = frozenset({"numbers", "zeros", "generate_series", "generateSeries", "values"})

#: Categories of `system.functions` whose functions compute and nothing else.
CATEGORIES = frozenset({
    "Null", "Nullable", "Comparison", "Distance", "String", "Strings", "Tuple", "Tuples", "Encoding", "String Search",
    "String Splitting", "String Replacement", "Aggregate Functions", "Arrays", "Array", "Arithmetic", "Bit", "Bitmap",
    "Conditional", "Dates and Times", "Hash", "JSON", "Logical", "Map", "Maps", "Mathematical", "Random Number",
    "Random Numbers", "Rounding", "Type Conversion", "UUID", "ULID", "URL", "IP Address", "Time Window", "Geo", "Geo Polygon",
    "Time Series", "Financial", "Decimal", "Nlp", "Natural Language Processing",
})  # fmt: skip
#: Harmless ones of the category that has everything else.
OTHERS = frozenset({
    "bar", "transform", "identity", "materialize", "ignore", "neighbor", "runningDifference", "runningAccumulate",
    "formatReadableSize", "formatReadableQuantity", "formatReadableTimeDelta", "formatReadableDecimalSize", "parseTimeDelta",
    "parseReadableSize", "toTypeName", "toColumnTypeName", "dumpColumnStructure", "rowNumberInAllBlocks", "rowNumberInBlock",
    "countDigits", "digits", "byteSize", "finalizeAggregation", "getSubcolumn", "variantElement", "variantType",
    "defaultValueOfArgumentType", "defaultValueOfTypeName", "isConstant", "indexHint", "parseISO8601Duration", "visibleWidth",
    "lowCardinalityKeys", "lowCardinalityIndices", "version",
})  # fmt: skip
#: Functions that the parser makes and no category lists, or that carry one that would refuse them.
_SYNTAX = frozenset({"lambda", "viewIfPermitted", "grouping", "exists", "untuple", "cast", "_cast", "casewithexpression"}) - {
    "viewIfPermitted"
}
#: Of allowed categories, but not harmless.
_NEVER = frozenset(
    {"chdb", "sleep", "sleepeachrow", "file", "joinget", "joingetornull", "logtrace", "url", "eval", "flamegraph", "aggthrow"}
)
_IN = frozenset({"in", "notin", "globalin", "globalnotin", "nullin", "notnullin", "globalnullin", "globalnotnullin"})
_IN_ALL = _IN | {name + "ignoreset" for name in _IN}


def check(tree: Any, *, database: str, tables: Collection[str], functions: Collection[str]) -> None:
    """Passes if the tree (`parseQueryToJSON`) only reads `tables` of `database` with `functions` (lower case names).

    Raises `Denied` (`sql.read-only`, `sql.setting`, `sql.format`, `sql.function`, `sql.table-function`) and `InvalidInput`
    (`sql.unknown-table`, `sql.too-deep`).
    """
    if not isinstance(tree, Mapping) or tree.get("type") not in _QUERIES:
        kind = str(tree.get("type", "?")) if isinstance(tree, Mapping) else "?"
        raise Denied("sql.read-only", f"Only SELECT can be asked, this is a {kind}.", advice=ADVICE)
    _Walker(database, frozenset(tables), functions).walk(tree, frozenset(), 0)


class _Walker:
    def __init__(self, database: str, tables: frozenset[str], functions: Collection[str]) -> None:
        self._database, self._tables, self._functions = database, tables, functions

    def walk(self, node: Any, names: frozenset[str], depth: int) -> None:
        """Checks a node and all below it; `names` are the common table expressions in scope."""
        if depth > DEPTH_MAX:
            raise InvalidInput("sql.too-deep", f"The query nests deeper than {DEPTH_MAX}.")
        if isinstance(node, list):
            for item in node:
                self.walk(item, names, depth + 1)
            return
        if not isinstance(node, Mapping):
            return
        kind = node.get("type")
        if kind is not None:
            if kind == "SelectQuery":
                names = names | _names_of_with(node.get("with"))
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
            elif name != "value" or kind != "Literal":
                self.walk(child, names, depth + 1)

    def _node(self, kind: str, node: Mapping[str, Any], names: frozenset[str]) -> None:
        if kind not in _NODES:
            raise Denied("sql.read-only", f"A query may not contain a {kind}.")
        if kind == "QueryParameter" and node.get("param_type") == "Identifier":
            raise Denied("sql.function", "A parameter gives a value, not a name.")
        if kind == "TableIdentifier":
            self._table(node, names)
        elif kind == "Function":
            self._function(str(node.get("name", "")))
            if str(node.get("name", "")).lower() in _IN_ALL:
                self._right_of_in(node, names)

    def _table(self, node: Mapping[str, Any], names: frozenset[str]) -> None:
        parts = [str(part) for part in node.get("name_parts") or [node.get("name", "")]]
        if node.get("children") or not parts[-1]:
            raise Denied("sql.unknown-table", "A table cannot be a parameter.")
        known = (
            parts[0] in names or parts[0] in self._tables if len(parts) == 1 else parts[0] == self._database and parts[1] in self._tables
        )
        if not known or len(parts) > 2:
            raise InvalidInput(
                "sql.unknown-table", f"There is no table {'.'.join(parts)}.", advice="There are: " + ", ".join(sorted(self._tables)) + "."
            )

    def _right_of_in(self, node: Mapping[str, Any], names: frozenset[str]) -> None:
        """A bare name at the right of IN may be a table."""
        arguments = (node.get("arguments") or {}).get("children") or []
        for argument in arguments[1:]:
            if isinstance(argument, Mapping) and argument.get("type") == "Identifier" and argument.get("name_parts"):
                self._table(argument, names)

    def _function(self, name: str) -> None:
        plain = name.lower()
        if plain in _NEVER or (plain not in self._functions and plain not in _SYNTAX and not self._is_combined(plain)):
            raise Denied("sql.function", f"The function {name} is not allowed in a query.")

    def _is_combined(self, name: str) -> bool:
        """An aggregate function with combinators: `sumIf`, `argMaxOrNullIf`, `countDistinct`."""
        suffixes = (
            "if",
            "array",
            "map",
            "ornull",
            "ordefault",
            "distinct",
            "state",
            "merge",
            "foreach",
            "resample",
            "simplestate",
            "argmin",
            "argmax",
        )
        for suffix in suffixes:
            stem = name.removesuffix(suffix)
            if stem != name and stem and (stem in self._functions or self._is_combined(stem)):
                return True
        return False

    def _table_function(self, node: Mapping[str, Any], names: frozenset[str], depth: int) -> None:
        name = str(node.get("name", ""))
        if name not in _TABLE_FUNCTIONS:
            raise Denied("sql.table-function", f"The table function {name} is not allowed in a query.")
        self.walk(node.get("arguments"), names, depth + 1)


def _names_of_with(node: Any) -> frozenset[str]:
    """Names of common table expressions (`WITH name AS (SELECT …)`)."""
    children = node.get("children", []) if isinstance(node, Mapping) else []
    return frozenset(
        str(child["name"]) for child in children if isinstance(child, Mapping) and child.get("type") == "WithElement" and "name" in child
    )
