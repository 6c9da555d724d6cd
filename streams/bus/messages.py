"""Messages between modules over the hub: sent with an answer, broadcast to whoever wants them, and received one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from streams.records import Json, ModuleMessage
from streams.topics import REQUESTS, RESPONSES

if TYPE_CHECKING:
    from streams.bus.bus import Bus

HUB = "hub"
#: How much longer than the hub itself its caller waits, seconds.
MARGIN_S = 5.0
#: Ids of messages that a subscriber remembers, to give each of them once.
REMEMBERED_MAX = 100_000
#: How long a module or subscriber may take, unless told otherwise, seconds.
TIMEOUT_S = 30.0


class Messaging:
    """The part of a bus that is about messages between modules."""

    async def send_message(
        self,
        module: str,
        operation: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout: float = TIMEOUT_S,
        retries: int = 0,
    ) -> dict[str, Any]:
        """As `call_module`, over the hub: all of it is on record. `{"messageId", "result", …}`; raises `module.silent`."""
        return await sent(cast("Bus", self), module, operation, parameters or {}, timeout=timeout, retries=retries)

    async def broadcast(
        self, type: str, data: Json = None, *, source: str = "bus", timeout: float = TIMEOUT_S, wait: bool = True
    ) -> dict[str, Any]:
        """Sends a message to all who want its type; who has received it (`received`, `missing`) when all have or the time is over."""
        return await told(cast("Bus", self), type, {} if data is None else data, source=source, timeout=timeout, wait=wait)

    async def modules(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All modules by name, built-in and registered ones (`kind`: `built-in`, `registered`).

        Each with `module`, `kind`, `status` (`serving`, `draining`, `stopped`, `silent`: no process of it lives), `description`, the names
        of its `operations`, the `instances` (processes) that live with `lease_until` and `detail`, and `registered_at`. Raises
        `Unavailable`.
        """
        from streams.bus.modules import listed  # which knows us

        return await listed(cast("Bus", self), kind)

    def messages(
        self,
        subscriber: str,
        types: Sequence[str] = ("**",),
        *,
        source: str | None = None,
        ready: Callable[[], object] | None = None,
    ) -> AsyncIterator[ModuleMessage]:
        """Broadcasts for a subscriber, as they come; each is received when the next is asked for. `ready` is called when the hub knows it.

        The subscriber stays known when the iteration ends: what it misses it gets when it begins again, until the broadcast's deadline.
        """
        return received(cast("Bus", self), subscriber, types, source, ready)


async def sent(bus: Bus, module: str, operation: str, parameters: Mapping[str, Any], *, timeout: float, retries: int) -> dict[str, Any]:
    """See `Bus.send_message`."""
    given = {"module": module, "operation": operation, "parameters": dict(parameters), "timeout": round(timeout * 1000), "retries": retries}
    answer: dict[str, Any] = await bus.call_module(HUB, "send", given, home=HUB, timeout=timeout + MARGIN_S)
    return answer


async def told(bus: Bus, type: str, data: Json, *, source: str, timeout: float, wait: bool) -> dict[str, Any]:
    """See `Bus.broadcast`."""
    given = {"type": type, "data": data, "source": source, "timeout": round(timeout * 1000), "wait": wait}
    answer: dict[str, Any] = await bus.call_module(HUB, "broadcast", given, home=HUB, timeout=timeout + MARGIN_S)
    return answer


async def received(
    bus: Bus, subscriber: str, types: Sequence[str], source: str | None, ready: Callable[[], object] | None
) -> AsyncIterator[ModuleMessage]:
    """See `Bus.messages`."""
    subscription = bus.subscribe(RESPONSES, since="now", key=subscriber)
    # First the ear, then the wish: what is sent again must not be missed.
    await subscription.start()
    seen: deque[str] = deque(maxlen=REMEMBERED_MAX)
    known: set[str] = set()
    try:
        await bus.call_module(HUB, "subscribe", {"subscriber": subscriber, "types": list(types), "source": source}, home=HUB)
        if ready is not None:
            ready()
        async for record in subscription:
            if not isinstance(record, ModuleMessage) or record.kind != "broadcast" or record.target_module != subscriber:
                continue
            if record.id not in known:
                yield record
                if len(seen) == seen.maxlen:
                    known.discard(seen[0])
                seen.append(record.id)
                known.add(record.id)
            await bus.send(REQUESTS, HUB, receipt(record, subscriber))
    finally:
        await subscription.aclose()


def receipt(message: ModuleMessage, subscriber: str) -> ModuleMessage:
    """The notification that a subscriber has a broadcast."""
    return ModuleMessage(
        type="hub.notified",
        source=f"mplp/{subscriber}",
        subject=message.subject,
        correlation_id=message.correlation_id,
        causation_id=message.id,
        data={"broadcast_id": message.subject, "subscriber": subscriber},
        kind="notification",
        source_module=subscriber,
        target_module=HUB,
        operation="received",
    )
