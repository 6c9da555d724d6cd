"""Peers in environments of their own under `build/peers`, made on first use by ordinary package clients, never our dependencies.

A peer is a script that is run there and prints one JSON line: `latencies_ms` of one client, `workflows_per_s` of many.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path("build") / "peers"
#: Versions as measured; a newer one is a change of this file.
DBOS = ("dbos==3.4.0",)
RESTATE = ("restate-sdk[serde]==1.3.0", "hypercorn==0.18.0", "granian[uvloop]==2.8.7", "aiohttp==3.14.5")
BYTEWAX = ("bytewax[kafka]==0.21.1", "confluent-kafka==2.16.1", "fastavro==1.13.1", "orjson==3.13.0")
QUIX = ("quixstreams==3.28.1", "fastavro==1.13.1", "orjson==3.13.0")
RESTATE_SERVER = "@restatedev/restate-server@1.7.12"


def dbos(*counts: int) -> dict[str, Any]:
    """DBOS on SQLite, the workflows in threads of the client's own process."""
    return _run(_python("dbos", DBOS), SCRIPTS / "dbos_three_steps.py", *map(str, counts))


def restate(how: str, *counts: int) -> dict[str, Any]:
    """Restate, `documented` or `tuned`: see `restate_three_steps.py`."""
    return _run(_python("restate", RESTATE), SCRIPTS / "restate_three_steps.py", str(_restate_server()), how, *map(str, counts))


def stream_peer(name: str, work: str = "count") -> list[str]:
    """The command of a peer of `rules.py` (`count`) or `routes.py` (`route`), without its arguments: `bytewax`, `quix`, or `faust`.

    Faust is plain, in our own environment.
    """
    python = {"bytewax": BYTEWAX, "quix": QUIX}.get(name)
    return [str(sys.executable if python is None else _python(name, python)), str(SCRIPTS / f"{name}_{work}.py")]


def _python(name: str, requirements: tuple[str, ...]) -> Path:
    """The interpreter of an environment with these packages."""
    environment = ENVIRONMENTS / name
    python, done = environment / "bin" / "python", environment / "requirements"
    if not done.exists() or done.read_text() != "\n".join(requirements):
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        done.write_text("\n".join(requirements))
    return python


def _restate_server() -> Path:
    """The server from its npm package."""
    folder = ENVIRONMENTS / "restate-server"
    server = folder / "node_modules" / ".bin" / "restate-server"
    if not server.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError("Restate's server comes from npm, which is not installed.")
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        subprocess.run([npm, "install", *options, RESTATE_SERVER], check=True, stdout=sys.stderr)
    return server


def _run(python: Path, script: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([str(python), str(script), *arguments], text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
