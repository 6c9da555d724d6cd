"""Publish events, follow them, handle them in a group with dead letters, and look back.

Needs a Kafka with our topics: `mplp up` (or `mplp topics apply` on a Kafka of your own). Then: python examples/produce_and_consume.py
"""

from __future__ import annotations

import asyncio
import sys
import uuid

from streams import Bus, InvalidInput, SystemEvent, connect

#: A story of this run's own, so that it can be repeated.
STORY = f"order-{uuid.uuid4().hex[:8]}"


def say(text: str) -> None:
    """One line of output."""
    sys.stdout.write(text + "\n")


async def publish(bus: Bus) -> None:
    """One event, then many at once; `publish` returns when the broker has them."""
    paid = SystemEvent(type="order.paid", source="shop", subject=STORY, correlation_id=STORY, data={"total": 12.5})
    [place] = await bus.publish(paid)
    say(f"published {paid.type} to {place.topic}, partition {place.partition}, offset {place.offset}")
    await bus.publish(
        {"type": f"order.{what}", "source": "shop", "subject": STORY, "correlation_id": STORY, "data": {"total": total}}
        for what, total in (("packed", 12.5), ("sent", 12.5), ("returned", -1))
    )


async def refusal(bus: Bus) -> None:
    """Everything is checked before anything is sent: the error says what is wrong, and where."""
    try:
        await bus.publish([SystemEvent(type="order.paid"), SystemEvent(type="order.paid", data={"total": float("nan")})])
    except InvalidInput as error:
        say(f"refused: {error.code} at {error.pointer}")


async def follow(bus: Bus) -> None:
    """Subscribe before you publish: inside the block nothing is missed."""
    async with bus.subscribe("mplp.system.events", type="order.*", where=f'correlation_id == "{STORY}"') as subscription:
        await publish(bus)
        for _ in range(4):
            event = await anext(subscription)
            say(f"seen {event.type} {event.data}")


async def handle(bus: Bus) -> None:
    """A handler in a group: what it cannot handle goes to the dead letters, the others go on."""
    done = asyncio.Event()
    handled = 0

    async def charge(event: SystemEvent) -> None:
        nonlocal handled
        handled += 1
        if handled == 4:
            done.set()
        if event.data["total"] < 0:
            raise ValueError("a negative total")
        say(f"handled {event.type}")

    chosen = f'correlation_id == "{STORY}"'
    task = asyncio.create_task(bus.handle("mplp.system.events", group=f"billing-{STORY}", handler=charge, since="beginning", where=chosen))
    try:
        await done.wait()
        async with bus.subscribe("mplp.system.events.dlq", since="beginning", where=chosen) as dead_letters:
            say(f"dead letter {(await anext(dead_letters)).type}")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def main() -> None:
    """All of it, one after another."""
    async with connect() as bus:
        await refusal(bus)
        await follow(bus)
        await handle(bus)
        for event in await bus.history(correlation_id=STORY):
            say(f"history {event.type}")


if __name__ == "__main__":
    asyncio.run(main())
