"""The module that the workflows of a chaos run call: its answers follow from the parameters and the attempt alone.

`python -m tests.chaos.module` serves it against the product that the environment names.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel, Field

from services.modules import Call, Module, OperationFailed

module = Module("chaos")


class Work(BaseModel):
    """What a call shall do."""

    value: Any = None  #: what it answers
    fail: list[str] = Field(default_factory=list)  #: error codes of the first attempts, in order; `never`: no answer in time
    always: str = ""  #: error code of every further attempt; empty: it answers
    takes_ms: int = 0


#: How long an attempt without an answer keeps the module, seconds: longer than any time-out that waits for it.
NEVER_S = 3.0


def message(code: str, attempt: int) -> str:
    """What an attempt that fails says."""
    return f"Attempt {attempt} fails with {code}."


@module.operation("work")
async def work(given: Work, call: Call) -> dict[str, Any]:
    """Answers or fails as its parameters say."""
    code = given.fail[call.attempt - 1] if call.attempt <= len(given.fail) else given.always
    if code == "never":
        await asyncio.sleep(NEVER_S)
        code = ""
    await asyncio.sleep(given.takes_ms / 1000)
    if code:
        raise OperationFailed(code, message(code, call.attempt), retryable=True)
    return {"value": given.value}


if __name__ == "__main__":
    module.main()
