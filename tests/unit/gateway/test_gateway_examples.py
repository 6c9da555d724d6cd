"""The example for curl uses routes that exist, with the methods that they have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from starlette.routing import Match

from services.gateway.app import create_app
from services.gateway.memory import Memory

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "curl.sh"


def requests() -> list[tuple[str, str]]:
    """Method and path of every request of the example; what the shell fills in becomes a word."""
    found = []
    for line in EXAMPLE.read_text().splitlines():
        for helper, path in re.findall(r"^(get|post) [\"']?(/[^\s\"'?]*)", line):
            found.append((helper.upper(), path))
        for path in re.findall(r"\$URL(/[^\s\"'?]+)", line):
            sends = "--data-binary" in line or "-X POST" in line
            found.append(("POST" if sends else "GET", path))
    return [(method, re.sub(r"\$\w+", "x", path)) for method, path in found]


def test_every_request_of_the_example_has_a_route() -> None:
    assert len(requests()) > 10
    app = create_app(Memory().ports())
    for method, path in requests():
        scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}
        assert any(route.matches(scope)[0] is Match.FULL for route in app.routes), (method, path)


def test_the_example_is_a_shell_script() -> None:
    checked = subprocess.run(["sh", "-n", str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
