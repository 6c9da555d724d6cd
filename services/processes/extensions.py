"""The process that loads extensions: `python -m services.processes.extensions`. One of them is enough."""

from __future__ import annotations

from services.modules.extension.host import host


def main() -> None:
    """Entry point."""
    host().main()


if __name__ == "__main__":
    main()
