"""`make demo`: the main job from nothing, with the commands that a user would type, on a data folder of its own.

Starts everything on free ports, runs the example workflow to `completed`, applies a rule, produces events until it fires,
asks the history in SQL, and stops. Every line that is printed comes from the running product.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path("examples")
RULE = EXAMPLES / "rules" / "orders-failing.yaml"
WORKFLOW = EXAMPLES / "multi-agent-collaboration.json"
STORY_SQL = """SELECT step_id, type, status, time FROM workflow_transitions
WHERE execution_id = {execution:String} ORDER BY sequence LIMIT 6"""
RATES_SQL = "SELECT topic, type, sum(events) AS events FROM event_rates GROUP BY topic, type ORDER BY events DESC, type LIMIT 8"
COMPOSITE_TIMEOUT = "20s"


class Demo:
    """Runs `mplp` on one data folder and shows what it runs."""

    def __init__(self, data_dir: Path) -> None:
        self._environment = {**os.environ, "MPLP_DATA_DIR": str(data_dir), "MPLP_HTTP_PORT": "0", "MPLP_KAFKA_PORT": "0"}

    def run(self, *arguments: str, stdin: str | None = None, show: bool = True) -> str:
        """Runs one command; its output is shown and returned. A failure ends the demo with its exit code."""
        _say(f"\n$ mplp {shlex.join(arguments)}")
        command = [sys.executable, "-m", "services.cli", *arguments]
        done = subprocess.run(command, env=self._environment, input=stdin, text=True, stdout=subprocess.PIPE, check=False)
        if show:
            _say(done.stdout.rstrip())
        if done.returncode != 0:
            raise SystemExit(done.returncode)
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command that goes on beside the next ones."""
        _say(f"\n$ mplp {shlex.join(arguments)} &")
        command = [sys.executable, "-m", "services.cli", *arguments]
        return subprocess.Popen(command, env=self._environment, text=True, stdout=subprocess.PIPE)


def main() -> None:
    """Entry point."""
    began = time.monotonic()
    data_dir = Path(tempfile.mkdtemp(prefix="mplp-demo-"))
    demo = Demo(data_dir)
    try:
        demo.run("up", "--detach")
        _workflow(demo)
        _composite(demo)
        _say("\nWhat has happened so far, by topic and type:")
        demo.run("query", RATES_SQL)
    finally:
        demo.run("down")
        shutil.rmtree(data_dir, ignore_errors=True)
    _say(f"\nDone in {time.monotonic() - began:.1f} s. Start it for yourself: .venv/bin/mplp up")


def _workflow(demo: Demo) -> None:
    result = json.loads(demo.run("workflow", "run", str(WORKFLOW), "--wait", "--json"))
    demo.run("workflow", "show", result["execution_id"])
    _say("\nThe same story, from the history in SQL:")
    demo.run("query", STORY_SQL, "--param", f"execution={result['execution_id']}")


def _composite(demo: Demo) -> None:
    demo.run("rules", "apply", str(RULE))
    tail = demo.start("composites", "tail", "--from", "beginning", "--count", "1", "--timeout", COMPOSITE_TIMEOUT)
    orders = [
        {"type": "order.failed", "source": "shop", "subject": f"order-{n}", "data": {"customer": "ada", "total": 10 * n}}
        for n in range(1, 4)
    ]
    demo.run("events", "produce", stdin="\n".join(json.dumps(order) for order in orders) + "\n")
    output, _ = tail.communicate()
    if not output.strip():
        raise SystemExit("no composite event arrived")
    _say(output.rstrip())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
