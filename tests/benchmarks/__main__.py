"""`python -m tests.benchmarks [NAME…]`: all benchmarks, or those named, one after the other, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def names() -> list[str]:
    """The benchmarks here: the modules with a `main`."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [file.stem for file in files if file.stem != "__main__" and "\ndef main()" in file.read_text()]


def main() -> None:
    """Runs them; the exit code is 1 if any of them failed."""
    wanted = sys.argv[1:] or names()
    if unknown := set(wanted) - set(names()):
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    failed = []
    for name in wanted:
        sys.stderr.write(f"== {name}\n")
        if subprocess.call([sys.executable, "-m", f"tests.benchmarks.{name}"]) != 0:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
