"""A short run of `make chaos`: random workflows while cores are killed, stopped and continued end as the oracle says."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.acceptance.product import ROOT


def test_random_workflows_end_as_the_oracle_says_while_cores_are_killed_and_stopped() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "20", "--workflows", "80", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    report = json.loads(done.stdout)
    assert report["wrongs"] == 0
    assert sum(report["faults_injected"].values()) >= 2, "there were faults"
    assert report["transitions"]["fence"] > 4, "each partition was taken once at the start, and some again"
