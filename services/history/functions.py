"""Which functions a query may use, decided by ClickHouse's own categories. Pure.

A function is allowed if its category holds only functions that compute, or if it is named here; never because nobody has thought of it:
functions that a later ClickHouse brings in a category of their own are refused until someone adds them.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Categories of `system.functions` whose functions compute and nothing else.
CATEGORIES = frozenset({
    "Null", "Nullable", "Comparison", "Distance", "String", "Strings", "Tuple", "Tuples", "Encoding", "String Search",
    "String Splitting", "String Replacement", "Aggregate Functions", "Arrays", "Array", "Arithmetic", "Bit", "Bitmap",
    "Conditional", "Dates and Times", "Hash", "JSON", "Logical", "Map", "Maps", "Mathematical", "Random Number",
    "Random Numbers", "Rounding", "Type Conversion", "UUID", "ULID", "URL", "IP Address", "Time Window", "Geo", "Geo Polygon",
    "Time Series", "Financial", "Decimal",
})  # fmt: skip
#: Harmless ones of the category that has everything else, and of none.
OTHERS = frozenset({
    "bar", "transform", "identity", "materialize", "ignore", "neighbor", "runningDifference", "runningAccumulate",
    "formatReadableSize", "formatReadableQuantity", "formatReadableTimeDelta", "formatReadableDecimalSize", "parseTimeDelta",
    "parseReadableSize", "parseReadableSizeOrNull", "parseReadableSizeOrZero", "toTypeName", "toColumnTypeName",
    "dumpColumnStructure", "rowNumberInAllBlocks", "rowNumberInBlock", "countDigits", "digits", "byteSize", "finalizeAggregation",
    "getSubcolumn", "variantElement", "variantType", "defaultValueOfArgumentType", "defaultValueOfTypeName", "isConstant",
    "isDecimalOverflow", "indexHint", "parseISO8601Duration", "visibleWidth", "lowCardinalityKeys", "lowCardinalityIndices",
    "version", "sparkbar", "WKT", "wkt", "readWKT",
})  # fmt: skip
#: What the parser makes of syntax (`CASE`, `::`, `x -> …`) and no category lists.
SYNTAX = frozenset({"lambda", "grouping", "exists", "untuple", "cast", "_cast", "casewithexpression", "casewithoutexpression"})
#: Of allowed categories, but not harmless: they wait, run programs or SQL, tell about the server, raise at will, or keep state.
NEVER = frozenset({
    "chdb", "sleep", "sleepeachrow", "file", "joinget", "joingetornull", "logtrace", "url", "eval", "flamegraph", "aggthrow",
    "throwif", "generateserialid", "timeseriesstoretags", "timeseriesidtotags", "timeseriesidtogroup", "timeseriesidtotagsgroup",
    "timeseriesthrowduplicateseriesif", "timeseriesjointags", "formatrow", "formatrownonewline", "groupformat",
})  # fmt: skip
#: Of allowed categories, but the work grows with the product of two lengths, in one step that no limit on time and no cancelling ends.
QUADRATIC = frozenset({
    "editdistance", "editdistanceutf8", "levenshteindistance", "levenshteindistanceutf8", "damerauLevenshteinDistance".lower(),
    "jarosimilarity", "jarowinklersimilarity", "arraylevenshteindistance", "arraylevenshteindistanceweighted", "arraysimilarity",
})  # fmt: skip
#: Suffixes that make an aggregate function of another one.
COMBINATORS = (
    "if", "array", "map", "ornull", "ordefault", "distinct", "state", "merge", "foreach", "resample", "simplestate", "argmin", "argmax",
)  # fmt: skip


def allowed(rows: Iterable[tuple[str, object, object]]) -> frozenset[str]:
    """Lower-case names of what may be used, of (name, categories, name that it is an alias of) as the engine lists them.

    Names that differ only in case are one: ClickHouse lists some functions so, one of them without a category.
    """
    known = [(str(name).lower(), str(categories), str(alias or "").lower()) for name, categories, alias in rows]
    found = {name.lower() for name in OTHERS} & {name for name, _, _ in known}
    for name, categories, _ in known:
        if any(category.strip() in CATEGORIES for category in categories.replace(";", ",").split(",")):
            found.add(name)
    found |= {name for name, _, alias in known if alias in found}
    return frozenset(found | SYNTAX) - NEVER - QUADRATIC


def is_allowed(name: str, functions: frozenset[str]) -> bool:
    """Whether a function, or an aggregate function with combinators (`sumIf`, `argMaxOrNullIf`), may be used."""
    plain = name.lower()
    if plain in NEVER or plain in QUADRATIC:
        return False
    return plain in functions or any(
        plain.endswith(suffix) and plain != suffix and is_allowed(plain.removesuffix(suffix), functions) for suffix in COMBINATORS
    )
