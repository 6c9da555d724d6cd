"""Who may import whom. The picture is in `docs`: schemas and streams below, services above, processes wire, the shell asks.

Every import counts, also one inside a function: a layer that is broken late is broken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "streams", "services", "infra")
#: Only these may know several services.
WIRING = "services.processes"
SHELL = "services.cli"
#: What pure code does without: the world.
WORLD = frozenset(
    {
        "aiokafka",
        "faust",
        "mode",
        "asyncio",
        "socket",
        "subprocess",
        "threading",
        "httpx",
        "uvicorn",
        "fastapi",
        "chdb",
        "clickhouse_connect",
    }
)
#: Files that are pure by their name. Others say so: their docstring has the sentence "Pure."
PURE_NAMES = frozenset({"decide.py", "evolve.py", "state.py", "states.py", "machine.py"})


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports."""
    tree = ast.parse(path.read_text())
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def service_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def forbidden(module: str, target: str) -> bool:
    """Whether `module` may not import `target`."""
    if below(module, "schemas"):
        return any(below(target, package) for package in PACKAGES if package != "schemas")
    if below(module, "streams"):
        return below(target, "services") or below(target, "infra")
    if below(module, "infra"):
        return below(target, "services")
    if below(module, WIRING):
        return below(target, SHELL)
    if below(module, SHELL):
        return below(target, "infra") or (below(target, "services") and not (below(target, SHELL) or below(target, WIRING)))
    return below(target, "infra") or (below(target, "services") and service_of(target) not in ("services", service_of(module)))


def test_layers_are_kept() -> None:
    assert modules()
    broken = [(name_of(path), target) for path in modules() for target in imported(path) if forbidden(name_of(path), target)]
    assert broken == []


def is_pure(path: Path) -> bool:
    return path.name in PURE_NAMES or "Pure." in (ast.get_docstring(ast.parse(path.read_text())) or "")


def test_pure_code_does_not_know_the_world() -> None:
    pure = [path for path in modules() if is_pure(path)]
    assert pure
    assert [(name_of(path), target) for path in pure for target in imported(path) if target.split(".")[0] in WORLD] == []


def test_the_faust_worker_is_the_only_place_that_knows_faust() -> None:
    knowing = {name_of(path) for path in modules() if any(target.split(".")[0] in ("faust", "mode") for target in imported(path))}
    assert {name for name in knowing if not below(name, "streams.faust_app")} == set()


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("streams.bus.bus", "services.history"),
        ("services.gateway.app", "services.history.store"),
        ("services.cli.query", "services.history.store"),
        ("services.orchestrator.machine", "infra.kafka"),
        ("schemas", "streams.records"),
        ("services.processes.core", "services.cli.frame"),
    ],
)
def test_the_rules_refuse_what_they_should(module: str, target: str) -> None:
    assert forbidden(module, target)


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("services.gateway.app", "services.gateway.keys"),
        ("services.gateway.app", "streams.errors"),
        ("services.cli.query", "services.processes.offline"),
        ("services.processes.core", "services.modules.machine"),
        ("infra.kafka", "streams.errors"),
        ("streams.bus.bus", "streams.kafka"),
    ],
)
def test_the_rules_allow_what_they_should(module: str, target: str) -> None:
    assert not forbidden(module, target)
