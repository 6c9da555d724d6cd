"""How a process tells the orchestrator that an operation of a step lives, and learns whether anybody still waits for it.

It asks once before the operation begins: an attempt that is over is not begun, and one that began before (here or in a process that died)
goes on from the details that it told last. From then on the orchestrator counts the operation's silence; whoever only waits in the topic
is not silent. Afterwards it asks whenever the operation has said that it lives, at first after `INTERVAL_S`, then less and less often, and
in the end `BEATS_PER_SILENCE` times per allowed silence: what runs for a minute is seen at once, what runs for a day writes few records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from services.modules.call import Lifeline
from streams.bus.executions import Executions
from streams.errors import BackboneError, Unavailable
from streams.operations import HEARTBEAT
from streams.records import Json, ModuleMessage
from streams.topics import RESPONSES

_log = structlog.get_logger("modules.worker")

BEATS_PER_SILENCE = 3
#: Time from the beginning to the first heartbeat, by which factor the time grows with each, and what it grows to at most, seconds.
INTERVAL_S, GROWTH, INTERVAL_S_MAX = 0.5, 1.5, 20.0
#: How long the orchestrator may take to answer, seconds; without an answer the operation begins, or goes on.
ANSWER_S = 5.0
#: What steps name as their source, and heartbeats as their target.
ENGINE = "workflow"


def is_of_step(request: ModuleMessage) -> bool:
    """Whether a request is an attempt of a step, whose orchestrator wants to hear of it."""
    return (
        request.source_module == ENGINE
        and request.execution_id is not None
        and request.step_id is not None
        and request.reply_to is not None
    )


class Heart:
    """The heartbeats of one operation that runs."""

    def __init__(self, hub: Executions, instance: str, request: ModuleMessage, lifeline: Lifeline) -> None:
        assert lifeline.silence_ms is not None, "only operations with heartbeats have one"
        self._hub = hub
        self._instance = instance
        self._request = request
        self._lifeline = lifeline
        self._silence_ms = lifeline.silence_ms
        self._told = 0  #: beats of the operation that the orchestrator knows

    async def begin(self) -> tuple[bool, Json]:
        """Whether the attempt is still wanted, and the details that the latest heartbeat before told."""
        answer = await self._ask()
        return (True, None) if answer is None else answer

    async def run(self, give_up: Callable[[], None]) -> None:
        """Passes on until cancelled that the operation lives; calls `give_up` when nobody waits for it any more."""
        longest_s = min(INTERVAL_S_MAX, self._silence_ms / 1000 / BEATS_PER_SILENCE)
        interval_s = min(INTERVAL_S, longest_s)
        while True:
            await asyncio.sleep(interval_s)
            if self._lifeline.beats == self._told:
                continue
            interval_s = min(interval_s * GROWTH, longest_s)
            answer = await self._ask()
            if answer is not None and not answer[0]:
                give_up()
                return

    async def finish(self) -> None:
        """Passes on the last details of an operation that failed: the next attempt begins there."""
        if self._lifeline.beats != self._told:
            await self._ask()

    async def _ask(self) -> tuple[bool, Json] | None:
        """What the orchestrator answers; None: it does not."""
        beats, details = self._lifeline.beats, self._lifeline.details
        data: dict[str, Json] = {"timeout_ms": self._silence_ms, "by": self._instance}
        if details is not None:
            data["details"] = details
        request = self._request
        message = ModuleMessage(
            type=f"{ENGINE}.requested",
            source=f"mplp/modules/{request.target_module}",
            subject=request.reply_to or "",
            tenant=request.tenant,
            correlation_id=request.correlation_id,
            causation_id=request.id,
            data=data,
            kind="request",
            source_module=request.target_module or "",
            target_module=ENGINE,
            operation=HEARTBEAT,
            execution_id=request.execution_id,
            step_id=request.step_id,
            attempt=request.attempt,
        )
        try:
            answer = (await self._hub.answer_of(ENGINE, message, min(ANSWER_S, self._silence_ms / 1000), topic=RESPONSES)).data
        except Unavailable as error:
            _log.warning("heartbeat.unheard", request=request.id, code=error.code)
            return None
        except BackboneError as error:
            _log.error("heartbeat.refused", request=request.id, code=error.code, reason=error.message)
            return None
        self._told = beats
        return (answer.get("wanted") is not False, answer.get("details")) if isinstance(answer, dict) else None
