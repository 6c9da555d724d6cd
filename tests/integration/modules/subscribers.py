"""Subscribers of broadcasts in a process of their own: `python -m tests.integration.modules.subscribers FIRST COUNT`.

Says a line for each message: who has received which. The topics are those of the environment.
"""

from __future__ import annotations

import asyncio
import sys

from streams.bus import Bus, connect


def names(first: int, count: int) -> list[str]:
    """What they are called."""
    return [f"subscriber-{number:03d}" for number in range(first, first + count)]


async def listen(bus: Bus, name: str) -> None:
    """One of them."""
    async for message in bus.messages(name, ["weather.*"]):
        sys.stdout.write(f"{name} {message.id}\n")
        sys.stdout.flush()


async def main(first: int, count: int) -> None:
    """All of them, until they are killed."""
    async with connect() as bus, asyncio.TaskGroup() as group:
        for name in names(first, count):
            group.create_task(listen(bus, name))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
