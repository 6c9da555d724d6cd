"""The product comes and goes as a whole."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.acceptance.product import Product


def test_down_leaves_no_process(tmp_path: Path) -> None:
    other = Product(tmp_path / "other")
    assert other.mplp("up", "--detach", "--json", timeout=600).code == 0
    root = psutil.Process(other.run_info()["pid"])
    below = [root, *root.children(recursive=True)]
    assert len(below) >= 5
    second = other.mplp("up", "--detach", "--json")
    assert second.code == 1
    assert "data.in-use" in second.err
    assert other.mplp("down").code == 0
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == []
    stopped = other.mplp("status", "--json")
    assert stopped.code == 3
