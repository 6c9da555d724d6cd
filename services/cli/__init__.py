"""The shell: `mplp`, one file per noun. Nouns are imported only when they are used, so that `--help` is quick."""

from services.cli.main import main

__all__ = ["main"]
