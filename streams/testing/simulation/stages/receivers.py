"""What webhooks call: receivers that answer, refuse, break off or say nothing, and the client of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from streams.records import EPOCH
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.loop import ProcessLoop
from streams.webhooks.addresses import Target
from streams.webhooks.outcomes import Answer, Delivered, Failed, Outcome, outcome_of

#: Key, address and body of a call that has arrived.
Called = Callable[[str, str, bytes], None]

_TIMEOUT_US = 2_000_000
_BROKEN = outcome_of(Answer(status=503, headers={}), EPOCH)
_REFUSED = outcome_of(Answer(status=400, headers={}), EPOCH)
_LOST, _SILENT = (Failed(code=f"webhook.{what}", message=str(what), retryable=True) for what in ("unreachable", "timeout"))


class SimulatedWebhooks:
    """See `streams.faust_app.ports.Webhooks`. `trouble`: the chance, at present, that a call goes wrong."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, trouble: Callable[[], float], called: Called) -> None:
        self._broker, self._loop, self._trouble, self._called = broker, loop, trouble, called

    async def post(self, target: Target, body: bytes, key: str, headers: Mapping[str, str]) -> tuple[Outcome, float]:
        """See `Webhooks.post`."""
        scheduler = self._broker.scheduler
        if scheduler.over:
            raise asyncio.CancelledError
        answered: asyncio.Future[Outcome] = self._loop.create_future()
        kind = int(scheduler.random.random() * 5) if scheduler.random.random() < self._trouble() else None
        began_us = scheduler.now_us

        def answer(outcome: Outcome, delay_us: int) -> None:
            scheduler.at(delay_us, partial(self._broker.resolve, self._loop, answered, outcome))

        def arrived() -> None:
            match kind:
                case 0:
                    answer(_LOST, self._broker.delay())
                case 1:
                    answer(_BROKEN, self._broker.delay())
                case 2:
                    answer(_REFUSED, self._broker.delay())
                case 3:
                    answer(_SILENT, _TIMEOUT_US)
                case 4:  # it has it, and nobody hears of that
                    self._called(key, target.url, body)
                    answer(_SILENT, _TIMEOUT_US)
                case _:
                    self._called(key, target.url, body)
                    answer(Delivered(), self._broker.delay())

        scheduler.at(self._broker.delay(), arrived)
        return await answered, (scheduler.now_us - began_us) / 1000

    async def close(self) -> None:
        """See `Webhooks.close`."""
