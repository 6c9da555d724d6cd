"""What ends an attempt from within the engine."""

from __future__ import annotations

from services.orchestrator.state import Error


class StepError(Exception):
    """An attempt cannot go on; `error` is what its step fails with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = Error(code=code, message=message)
