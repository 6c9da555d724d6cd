"""The README's commands are run as they stand, and its Python is what the package offers."""

from __future__ import annotations

import ast
import inspect
import re
import shlex

import pytest

from streams import Bus
from tests.acceptance.product import ROOT, Product

README = (ROOT / "README.md").read_text()
COMMANDS = [line.removeprefix(".venv/bin/mplp ") for line in README.splitlines() if line.startswith(".venv/bin/mplp ")]
#: Started and stopped by the fixture; `test_down_leaves_no_process` has them.
LIFE = {"up --detach", "down"}


def test_the_readme_starts_and_stops_what_it_uses() -> None:
    assert COMMANDS[0] == "up --detach"
    assert COMMANDS[-1] == "down"
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in LIFE])
def test_a_command_of_the_readme_does_what_it_says(product: Product, command: str) -> None:
    answer = product.mplp(*shlex.split(command))
    assert answer.code == 0, answer.err
    assert answer.out.strip(), "it says something"
    assert "Traceback" not in answer.err


def test_the_methods_that_the_readme_calls_exist() -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    tree = ast.parse("async def main():\n" + "".join(f"    {line}\n" for line in block[1].splitlines()))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    used = {call.func.attr: call for call in calls if isinstance(call.func.value, ast.Name) and call.func.value.id == "bus"}  # type: ignore[union-attr]
    assert set(used) >= {"publish", "subscribe", "history", "query", "run_workflow"}
    for name, call in used.items():
        signature = inspect.signature(getattr(Bus, name))
        signature.bind(None, *call.args, **{keyword.arg: keyword.value for keyword in call.keywords if keyword.arg})
