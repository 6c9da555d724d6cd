"""Views with parameters, written out where they are asked: exactly the calls, and nothing that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.history.inline import written_out

BODIES = {"causes": "SELECT * FROM mplp.t WHERE id = {id:String} OR cause = {id:String}"}


def out(sql: str) -> str:
    return written_out(sql, BODIES, "mplp")


def body(value: str) -> str:
    return f"(\nSELECT * FROM mplp.t WHERE id = CAST({value}, 'String') OR cause = CAST({value}, 'String')\n)"


X, Y = body("'x'"), body("{y:String}")


@pytest.mark.parametrize(
    "value", ["'x'", "'it\\'s'", "'it''s'", "'a) UNION ALL SELECT (1'", "'\\\\'", "42", "-7", "{x:String}", "{x:Nullable(String)}"]
)
def test_a_call_becomes_what_it_stands_for(value: str) -> None:
    assert out(f"SELECT * FROM causes(id = {value}) AS c WHERE 1") == f"SELECT * FROM {body(value)} AS c WHERE 1"


@pytest.mark.parametrize("name", ["mplp.causes", "`mplp`.`causes`", "mplp.`causes`", "`causes`"])
def test_with_the_name_of_the_database(name: str) -> None:
    assert out(f"SELECT 1 FROM {name}(id = 'x')") == f"SELECT 1 FROM {X}"


def test_every_call() -> None:
    both = out("SELECT * FROM causes(id = 'x') AS a INNER JOIN causes(id = {y:String}) AS b ON a.id = b.id")
    assert both == f"SELECT * FROM {X} AS a INNER JOIN {Y} AS b ON a.id = b.id"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'causes(id = \\'x\\')'",
        "SELECT `causes(id = 1)` FROM t",
        "SELECT causes FROM t",
        "WITH causes AS (SELECT 1) SELECT * FROM causes",
        # What the engine has to say something about.
        "SELECT * FROM causes(other = 'x')",
        "SELECT * FROM causes()",
        "SELECT * FROM causes(id = 'x', id = 'y')",
        "SELECT * FROM causes(id = concat('x', 'y'))",
        "SELECT * FROM causes(id = (SELECT max(id) FROM t))",
        "SELECT * FROM causes(id = NULL)",
        "SELECT * FROM causes(id = 'x'",
    ],
)
def test_the_rest_stays_as_it_is(sql: str) -> None:
    assert out(sql) == sql


@given(st.text(max_size=40))
def test_no_text_becomes_part_of_the_query(text: str) -> None:
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    assert out(f"SELECT {quoted} FROM causes(id = {quoted})") == f"SELECT {quoted} FROM {body(quoted)}"


@given(st.text(alphabet="causes(id = 'x')`\".{}\\\n,", max_size=60))
def test_any_text_is_taken(text: str) -> None:
    written_out(text, BODIES, "mplp")
