"""A user's module with one operation that does nothing, for `workflow.py`: `python -m tests.benchmarks.steps_module`."""

from __future__ import annotations

from pydantic import BaseModel

from services.modules import Module

module = Module("bench-steps")


class Number(BaseModel):
    """A whole number."""

    number: int


@module.operation("add-one")
async def add_one(given: Number) -> Number:
    """The next whole number."""
    return Number(number=given.number + 1)


if __name__ == "__main__":
    module.main()
