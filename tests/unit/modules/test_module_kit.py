"""The test kit for users' modules: what an author sees of a call, by a clock that nobody waits for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from services.modules import Call, Module, OperationCancelled, OperationFailed
from services.modules.testing import ModuleKit, OperationStuck
from streams.errors import InvalidInput, NotFound, Unavailable
from streams.limits import ERROR_CHARACTERS_MAX
from streams.records import Json, SystemEvent

DAY_S = 24 * 3600.0


class Import(BaseModel):
    rows: int = Field(ge=0)


@dataclass
class Imported:
    rows: int
    begun_at: int


def make() -> tuple[ModuleKit, list[str]]:
    module = Module("imports")
    seen: list[str] = []

    @module.operation("import", heartbeat_timeout=60)
    async def import_(parameters: Import, call: Call) -> Imported:
        begun_at = (call.details or {"row": 0})["row"]  # type: ignore[index,call-overload]
        try:
            for row in range(begun_at, parameters.rows):
                await asyncio.sleep(45)
                call.heartbeat({"row": row + 1})
                if row + 1 == 13:
                    raise OperationFailed("row.broken", "The thirteenth row is broken.", retryable=True)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return Imported(rows=parameters.rows, begun_at=begun_at)

    @module.operation("scan", heartbeat_timeout=60)
    def scan(parameters: Import, call: Call) -> int:
        for row in range(parameters.rows):
            try:
                call.heartbeat(row)
            except OperationCancelled:
                seen.append(f"stopped at {row}")
                raise
        return parameters.rows

    @module.operation("sleep", heartbeat_timeout=60)
    async def sleep(parameters: Import, call: Call) -> None:
        await asyncio.sleep(parameters.rows)

    return ModuleKit(module), seen


def test_a_result_is_what_a_caller_gets_and_days_take_no_time() -> None:
    kit, _ = make()
    began = time.monotonic()
    called = kit.call("import", Import(rows=10))
    assert called.outcome == "completed"
    assert called.returned() == {"rows": 10, "begun_at": 0}
    assert called.duration == timedelta(seconds=450)
    assert [(beat.at.total_seconds(), beat.details) for beat in called.heartbeats[:2]] == [(45.0, {"row": 1}), (90.0, {"row": 2})]
    assert time.monotonic() - began < 60  # the seven minutes did not pass; how long it took is no matter


def test_parameters_are_checked_as_for_a_caller() -> None:
    kit, _ = make()
    called = kit.call("import", {"rows": -1})
    assert called.outcome == "failed"
    assert called.error is not None
    assert (called.error.code, called.error.pointer) == ("invalid", "/rows")
    with pytest.raises(AssertionError, match="import gave no result but invalid"):
        called.returned()
    assert kit.call("export", {}).error.code == "operation.unknown"  # type: ignore[union-attr]


def test_the_next_attempt_gets_what_the_one_before_told_and_a_repeat_the_same_id() -> None:
    kit, _ = make()
    first = kit.call("import", Import(rows=14))
    assert (first.error.code, first.error.retryable, first.details) == ("row.broken", True, {"row": 13})  # type: ignore[union-attr]
    second = kit.next_attempt(first)
    assert second.returned() == {"rows": 14, "begun_at": 13}
    assert (second.request.attempt, second.request.id == first.request.id) == (2, False)
    assert kit.again(first).request.id == first.request.id


def test_an_operation_that_is_silent_for_too_long_is_ended() -> None:
    kit, _ = make()
    assert kit.call("sleep", Import(rows=59)).outcome == "completed"
    silent = kit.call("sleep", Import(rows=61))
    assert (silent.outcome, silent.duration) == ("silent", timedelta(seconds=60))


def test_cancellation_reaches_an_async_operation() -> None:
    kit, seen = make()
    called = kit.call("import", Import(rows=10), cancel_after=100)
    assert (called.outcome, called.duration, seen) == ("cancelled", timedelta(seconds=100), ["cancelled"])
    assert called.details == {"row": 2}


def test_cancellation_reaches_a_plain_function_at_its_next_heartbeat() -> None:
    kit, seen = make()
    called = kit.call("scan", Import(rows=1000), cancel_at_heartbeat=3)
    assert (called.outcome, seen, len(called.heartbeats)) == ("cancelled", ["stopped at 2"], 3)


def test_a_deadline_ends_an_operation_and_it_sees_how_much_time_is_left() -> None:
    module = Module("patient")
    left: list[timedelta | None] = []

    @module.operation("wait")
    async def wait(call: Call) -> None:
        left.append(call.time_left())
        await asyncio.sleep(20)
        left.append(call.time_left())
        await asyncio.sleep(DAY_S)

    kit = ModuleKit(module)
    assert kit.call("wait", timeout=30).outcome == "expired"
    assert left == [timedelta(seconds=30), timedelta(seconds=10)]
    assert kit.call("wait").outcome == "completed"
    assert left[2:] == [None, None]


def test_what_does_not_end_is_told() -> None:
    module = Module("stubborn")

    @module.operation("forever")
    async def forever() -> None:
        await asyncio.Event().wait()

    @module.operation("deaf")
    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(DAY_S)
            except asyncio.CancelledError:
                if len(caught) > 3:
                    raise
                caught.append(1)

    caught: list[int] = []
    kit = ModuleKit(module)
    with pytest.raises(OperationStuck, match=r"forever did not end\."):
        kit.call("forever")
    with pytest.raises(OperationStuck, match="deaf did not end although it was cancelled"):
        kit.call("deaf", cancel_after=1)


def test_messages_are_kept_and_other_modules_answer_as_told() -> None:
    module = Module("orders")

    @module.operation("place")
    async def place(parameters: dict[str, Any], call: Call) -> dict[str, Json]:
        plan: Any = await call.ask("plan", "create-plan", {"name": parameters["name"]})
        await call.publish(SystemEvent(type="order.placed", subject=parameters["name"], data={"plan": plan["planId"]}))
        told: Any = await call.broadcast("order.placed", {"name": parameters["name"]})
        return {"plan": plan["planId"], "broadcast": told["broadcastId"]}

    kit = ModuleKit(module)
    kit.answer("plan.create-plan", lambda parameters: {"planId": f"plan-{parameters['name']}"})
    called = kit.call("place", {"name": "tea"})
    assert called.returned() == {"plan": "plan-tea", "broadcast": "hub/broadcast-1"}
    (event,) = called.published
    assert (event.source, event.causation_id, event.correlation_id) == ("mplp/modules/orders", called.request.id, "test-1")
    assert [(each.target_module, each.operation) for each in called.asked] == [("plan", "create-plan"), ("hub", "broadcast")]
    assert called.asked[1].data == {"type": "order.placed", "data": {"name": "tea"}, "source": "orders", "timeout": 30_000, "wait": False}

    repeated = kit.again(called)
    assert [each.id for each in (*repeated.published, *repeated.asked)] == [each.id for each in (*called.published, *called.asked)]
    assert len({each.id for each in (*called.published, *called.asked)}) == 3
    assert kit.next_attempt(called).published[0].id != event.id


def test_other_modules_may_refuse_or_be_silent() -> None:
    module = Module("orders")

    @module.operation("place")
    async def place(call: Call) -> Any:
        return await call.ask("plan", "get-plan", {"planId": "p"}, timeout=5)

    kit = ModuleKit(module)
    assert kit.call("place").error.code == "module.silent"  # type: ignore[union-attr]
    assert kit.call("place").duration == timedelta(seconds=5)
    kit.answer("plan.get-plan", NotFound("not-found", "There is no plan p."))
    assert kit.call("place").error.code == "not-found"  # type: ignore[union-attr]
    kit.answer("plan.get-plan", Unavailable("module.silent", "It is away."))
    assert kit.call("place").error.retryable is True  # type: ignore[union-attr]


def test_broadcasts_reach_the_listener_of_their_type() -> None:
    module = Module("ears")
    heard: list[Any] = []

    @module.on("order.*")
    async def order(data: dict[str, Any]) -> None:
        heard.append(data)
        if data.get("bad"):
            raise OperationFailed("order.bad", "This is no order.")

    kit = ModuleKit(module)
    assert kit.broadcast("order.paid", {"total": 5}).outcome == "completed"
    assert heard == [{"total": 5}]
    assert kit.broadcast("order.paid", {"bad": True}).error.code == "order.bad"  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match=r"broadcast\.unwanted"):
        kit.broadcast("stock.empty")


def test_heartbeats_are_declared_and_small_json() -> None:
    module = Module("beats")

    @module.operation("undeclared")
    def undeclared(call: Call) -> None:
        call.heartbeat()

    @module.operation("odd", heartbeat_timeout=1)
    def odd(parameters: dict[str, int], call: Call) -> None:
        call.heartbeat(object() if not parameters else "x" * parameters["size"])

    kit = ModuleKit(module)
    assert kit.call("undeclared").error.code == "operation.heartbeat"  # type: ignore[union-attr]
    assert kit.call("odd").error.code == "heartbeat.invalid"  # type: ignore[union-attr]
    assert kit.call("odd", {"size": 20_000}).error.code == "heartbeat.invalid"  # type: ignore[union-attr]
    assert kit.call("odd", {"size": 10_000}).outcome == "completed"
    with pytest.raises(InvalidInput, match=r"operation\.signature"):
        module.operation("without-call", heartbeat_timeout=1)(lambda: None)
    for seconds in (0, -1, 10**9):
        with pytest.raises(InvalidInput, match=r"operation\.heartbeat"):
            module.operation("x", heartbeat_timeout=seconds)


async def test_the_kit_works_inside_a_running_loop() -> None:
    kit, _ = make()
    assert kit.call("import", Import(rows=2)).duration == timedelta(seconds=90)


def test_of_an_endless_message_the_beginning_is_told() -> None:
    module = Module("complaints")

    @module.operation("complain")
    def complain() -> None:
        raise OperationFailed("too.much", "x" * 100_000)

    error = ModuleKit(module).call("complain").error
    assert error is not None
    assert (error.code, len(error.message)) == ("too.much", ERROR_CHARACTERS_MAX)
