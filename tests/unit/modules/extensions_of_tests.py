"""A tiny distribution with extensions, good and bad ones, made in a folder: entry points as pip would leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]

CODE = '''
import os, sys, threading, time


class Good:
    def activate(self, config):
        print("noise on stdout", flush=True)
        self.config = config

    def deactivate(self):
        if self.config.get("stubborn"):
            raise ValueError("it will not go")

    def health(self):
        if self.config.get("marker") and os.path.exists(self.config["marker"]):
            return False
        return {"healthy": True, "config": self.config, "pid": os.getpid()}


class Plain:
    pass


class Broken:
    def activate(self, config):
        raise RuntimeError("no such thing")


class Leaving:
    """Ends its process: by exit, or by a signal, a moment after it was activated or when it is asked."""

    def activate(self, config):
        self.how = config["how"]
        if self.how == "later":
            threading.Timer(0.05, lambda: os._exit(7)).start()
        if self.how == "at once":
            os._exit(3)
        if self.how == "politely":
            sys.exit("bye")

    def health(self):
        if self.how == "by signal":
            os.kill(os.getpid(), 9)


class Hanging:
    def activate(self, config):
        self.config = config
        if config.get("at") == "activate":
            time.sleep(3600)

    def health(self):
        time.sleep(3600)


class Hungry:
    def health(self):
        return {"taken": len(bytearray(2 * 2**30))}


class Odd:
    def health(self):
        return {"what": object()}
'''

NAMES = ("good", "plain", "broken", "leaving", "hanging", "hungry", "odd")


def install(folder: Path, extra: str = "", extra_points: str = "") -> None:
    """Makes the distribution in `folder`."""
    (folder / "extensions_for_tests.py").write_text(CODE + extra)
    info = folder / "extensions_for_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extensions-for-tests\nVersion: 1.0\n")
    points = "".join(f"{name} = extensions_for_tests:{name.title()}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[mplp.extensions]\n{points}missing = extensions_for_tests:Nowhere\n{extra_points}")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the distribution, on the path of every process that is started from here."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(REPOSITORY)]))
    return folder
