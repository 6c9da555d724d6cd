"""What an exception leaves in a log."""

from __future__ import annotations

import io
from typing import Any

import structlog

from streams.tracebacks import plain_processors


def written(**options: Any) -> str:
    """The log of a function that fails while it knows a secret."""
    text = io.StringIO()
    log = structlog.wrap_logger(structlog.PrintLogger(text), processors=plain_processors(**options))
    secret = "s3cret".upper()
    try:
        raise ValueError(f"{len(secret)} is too short")
    except ValueError:
        log.exception("operation.failed", module="greeter")
    return text.getvalue()


def test_it_says_where_and_what_but_no_variables() -> None:
    said = written(colors=False)
    assert {"operation.failed", "module=greeter"} <= set(said.split())
    assert 'test_tracebacks.py", line' in said
    assert said.rstrip().endswith("ValueError: 6 is too short")
    assert "S3CRET" not in said, "values of variables stay where they are"


def test_without_colours_it_is_plain_text() -> None:
    assert "\x1b" not in written(colors=False)
