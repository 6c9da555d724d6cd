"""The Restate service of `restate_three_steps.py`: three durable steps in a row that do nothing (an ASGI app)."""

from __future__ import annotations

import restate
from restate import Context, Service

three_steps = Service("ThreeSteps")


def add_one(number: int) -> int:
    return number + 1


@three_steps.handler()
async def run(context: Context, number: int) -> int:
    for name in ("one", "two", "three"):
        number = await context.run_typed(name, add_one, number=number)
    return number


app = restate.app(services=[three_steps])
