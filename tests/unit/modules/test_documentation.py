"""What the documents say of modules is so: tables of states, event types, error codes, and the code of the how-to."""

from __future__ import annotations

import json
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.modules import Call, Module, OperationFailed
from services.modules.beating import BEATS_PER_SILENCE
from services.modules.catalogue import MODULES, describe
from services.modules.extension.host import CHECK_S, LOAD_S, ROUND_S, UNLOAD_S
from services.modules.extension.state import WAIT_US
from services.modules.operation import types_of
from services.modules.presence import LEASE_MS, RENEWAL_S
from streams.limits import HEARTBEAT_BYTES_MAX
from streams.settings import Settings

DOCS = Path(__file__).resolve().parents[3] / "docs"
CONCEPTS = (DOCS / "concepts" / "modules.md").read_text()
REFERENCE = (DOCS / "reference" / "modules.md").read_text()
HOW_TO = (DOCS / "how-to" / "write-a-module.md").read_text()


def test_the_diagrams_are_drawn_from_the_tables_and_every_event_is_listed() -> None:
    for module in MODULES.values():
        for lifecycle in module.lifecycles:
            for before, after in lifecycle.arrows():
                assert f"    {before} --> {after}\n" in lifecycle.diagram() + "\n"
            assert lifecycle.diagram() in REFERENCE
        assert all(f"`{name}`" in REFERENCE for event_class in module.events for name in types_of(event_class))


def test_every_operation_is_there_with_all_its_parameters_and_a_call_that_names_those_that_are_needed() -> None:
    for name in MODULES:
        for operation, found in (describe(name) or {}).items():
            section = REFERENCE.partition(f"\n### {name}.{operation}\n")[2].partition("\n### ")[0]
            assert found["description"] in section
            assert found["parameters"].get("properties", {}).keys() <= set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
            (example,) = re.findall(rf"`mplp modules call {name} {operation}( --parameters '(.*)')?`", section)
            assert list(json.loads(example[1] or "{}")) == list(found["parameters"].get("required", []))
            assert f"`{found['result']['title']}`" in REFERENCE


def test_every_code_of_a_refusal_is_told() -> None:
    source = "".join(path.read_text() for path in (DOCS.parent / "services" / "modules").rglob("*.py"))
    codes = set(re.findall(r'Refusal\(\s*code="([a-z.-]+)"', source)) - {"internal"}
    told = {code for line in re.findall(r"^\| (`.+?) \|", CONCEPTS, re.MULTILINE) for code in re.findall(r"`([a-z.-]+)`", line)}
    assert codes <= told


async def test_the_module_of_the_how_to_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", HOW_TO, re.DOTALL)
    greetings = types.ModuleType("greetings")
    sys.modules["greetings"] = greetings
    try:
        exec(compile(code, "write-a-module.md", "exec"), greetings.__dict__)
        module: Module = greetings.module
        call = Call(request_id="r", operation="greet", execution_id=None, step_id=None, attempt=0, deadline=None, correlation_id="")
        with ThreadPoolExecutor(1) as executor:
            assert await module.operations["greet"].answer({"name": "Ada"}, call, executor) == {"text": "Hello, Ada!"}
            with pytest.raises(OperationFailed, match=r"name\.unknown"):
                await module.operations["greet"].answer({"name": "nobody"}, call, executor)
    finally:
        del sys.modules["greetings"]


def test_the_tests_of_the_how_to_pass() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "how-to" / "test-a-module.md").read_text(), re.DOTALL)
    imports = types.ModuleType("imports_of_the_how_to")
    sys.modules[imports.__name__] = imports
    try:
        exec(compile(code, "test-a-module.md", "exec"), imports.__dict__)
        tests = [found for name, found in vars(imports).items() if name.startswith("test_")]
        assert len(tests) == 5
        for test in tests:
            test()
    finally:
        del sys.modules[imports.__name__]


def test_the_figures_of_the_how_to_are_those_of_the_code() -> None:
    assert f"`MPLP_MODULE_CONCURRENCY` ({Settings.model_fields['module_concurrency'].default})" in HOW_TO
    assert f"`MPLP_MODULE_DRAIN_MS` ({Settings.model_fields['module_drain_ms'].default})" in HOW_TO
    assert f"lease of {LEASE_MS // 1000} s, renewed every {RENEWAL_S:.0f} s" in HOW_TO
    assert f"at most {BEATS_PER_SILENCE} times per `heartbeat_timeout`" in HOW_TO
    assert f"up to {HEARTBEAT_BYTES_MAX // 1024} KiB" in HOW_TO


def test_the_limits_of_the_how_to_about_extensions_are_those_of_the_code() -> None:
    page = (DOCS / "how-to" / "write-an-extension.md").read_text()
    assert f"`activate` in {LOAD_S:.0f} s, `health` in {CHECK_S:.0f} s, `deactivate` in {UNLOAD_S:.0f} s" in page
    assert f"Called every {ROUND_S:.0f} s" in page
    assert f"`MPLP_EXTENSION_MEMORY_BYTES` ({Settings.model_fields['extension_memory_bytes'].default // 2**20} MiB)" in page
    assert LOAD_S * 1_000_000 < WAIT_US
    assert all(f"`{code}`" in page for code in ("extension.failed", "extension.hangs", "extension.memory"))
