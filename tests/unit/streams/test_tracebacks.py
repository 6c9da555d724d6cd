"""What an exception leaves in a log."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from streams.tracebacks import keep_stdout_clean, plain_processors


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


@pytest.fixture
def unconfigured() -> Iterator[None]:
    """structlog as a program has it that never heard of it."""
    former = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**former)


@pytest.mark.usefixtures("unconfigured")
def test_stdout_is_left_to_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    keep_stdout_clean()
    structlog.get_logger("streams.bus").warning("record.skipped")
    told = capsys.readouterr()
    assert told.out == ""
    assert "record.skipped" in told.err


@pytest.mark.usefixtures("unconfigured")
def test_a_program_that_has_configured_its_log_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    keep_stdout_clean()
    structlog.get_logger("streams.bus").warning("record.skipped")
    assert capsys.readouterr().out == '{"event": "record.skipped"}\n'
