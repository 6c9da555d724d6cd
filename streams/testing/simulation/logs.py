"""What the kernel logs during a run: dropped, or told to the trace."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog


@contextmanager
def logs_to(tell: Callable[[str], None] | None) -> Iterator[None]:
    """Sends log lines to `tell` for a while (None: drops them), then puts the former configuration back."""
    former = structlog.get_config()

    def line(_logger: Any, _name: str, event: Any) -> Any:
        assert tell is not None
        tell(" ".join([str(event.pop("event")), *(f"{key}={value}" for key, value in event.items())]))
        raise structlog.DropEvent

    structlog.configure(
        processors=[] if tell is None else [line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL if tell is None else logging.DEBUG),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**former)
