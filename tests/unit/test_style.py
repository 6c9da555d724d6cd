"""House rules that a linter does not check. They only ever get stricter: numbers here go down, lists get shorter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("schemas", "streams", "services", "infra")
CHECKED = (*SOURCES, "tests", "examples")
TEXTS = (*CHECKED, "docs", ".ci")

#: Lines of a file. A large file is a sign of two ideas.
LINES_MAX = 400

TEXT_SUFFIXES = frozenset({".py", ".md", ".toml", ".yaml", ".yml", ".json", ".avsc", ".sql", ".sh", ".txt", ".cfg", ".properties", ""})
#: Built from parts, so that this file does not have them.
MACHINE_PATHS = re.compile("|".join(rf"(?<![\w.$}}])/{folder}/\w" for folder in ("work", "home", "root", "Users")))
PACKAGE_HOSTS = re.compile(
    "|".join(
        re.escape(f"{host}.{end}")
        for host, end in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("repo1.maven", "org"),
            ("repo.maven.apache", "org"),
            ("central.sonatype", "com"),
            ("npmjs", "org"),
        )
    )
)
UNFINISHED = re.compile(
    "|".join(
        (
            r"\b" + "TO" + r"DO\b",
            r"\b" + "FIX" + r"ME\b",
            r"\bX" + r"XX\b",
            r"\bHA" + r"CK\b",
            r"(?i:\bfor " + r"now\b)",
            r"(?i:\bnot yet " + r"implemented\b)",
            r"NotImplemented" + "Error",
        )
    )
)


def files(*folders: str, suffixes: frozenset[str] = frozenset({".py"})) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes and path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def texts() -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT_SUFFIXES | {".lock"} and path.name != ".git"]
    return sorted(top) + files(*TEXTS, suffixes=TEXT_SUFFIXES)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_stay_small() -> None:
    sizes = {relative(path): len(path.read_text().splitlines()) for path in files(*CHECKED)}
    too_large = {name: lines for name, lines in sizes.items() if lines > LINES_MAX}
    assert too_large == {}


def test_code_keeps_the_house_rules() -> None:
    faults = []
    for path in files(*SOURCES):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                faults.append(f"{relative(path)}:{node.lineno}: bare except")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input", "eval", "exec"):
                faults.append(f"{relative(path)}:{node.lineno}: {node.func.id}()")
    assert faults == []


def test_every_file_says_what_it_is_for() -> None:
    written = [path for path in files(*SOURCES) if path.stat().st_size]
    assert [relative(path) for path in written if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_every_room_says_what_it_is_for() -> None:
    folders = {path.parent for path in files(*SOURCES)}
    silent = [
        relative(folder)
        for folder in sorted(folders)
        if not (folder / "__init__.py").exists() or not (folder / "__init__.py").stat().st_size
    ]
    assert silent == []


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{relative(path)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_names_a_machine() -> None:
    # A container has folders of its own; what describes it names them.
    assert lines_with(MACHINE_PATHS, [path for path in texts() if path.name not in ("Dockerfile", "docker-compose.yml")]) == []


def test_nothing_names_a_package_host() -> None:
    assert lines_with(PACKAGE_HOSTS, texts()) == []


def test_nothing_is_left_for_later() -> None:
    assert lines_with(UNFINISHED, files(*CHECKED) + files("docs", suffixes=frozenset({".md"}))) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE_PATHS, "data in /" + "home/someone/x"),
        (PACKAGE_HOSTS, "https://" + "pypi" + ".org/simple"),
        (UNFINISHED, "# TO" + "DO: later"),
        (UNFINISHED, "good enough for " + "now"),
    ],
)
def test_the_patterns_find_what_they_should(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)
