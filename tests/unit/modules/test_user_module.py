from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field

from services.modules import Call, Module, OperationFailed
from services.modules.registration import registered_modules, registration_event
from streams.errors import InvalidInput
from streams.operations import CONTRACT
from streams.records import SystemEvent

CALL = Call(request_id="r1", operation="x", execution_id=None, step_id=None, attempt=0, deadline=None, correlation_id="c")


class Charge(BaseModel):
    amount: int = Field(gt=0)
    order_id: str = Field("none", alias="orderId")


class Charged(BaseModel):
    amount: int
    order_id: str = Field(serialization_alias="orderId", validation_alias="order_id")


@dataclass
class Point:
    x: int


async def answer(module: Module, operation: str, given: Any) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return await module.operations[operation].answer(given, CALL, executor)


@pytest.mark.parametrize("name", ["", "Billing", "billing_", "a--b", "-a", "a b", "a.b", "x" * 101, *CONTRACT])
def test_a_module_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"module\.name"):
        Module(name)


@pytest.mark.parametrize("name", ["", "Charge", "charge_all"])
def test_an_operation_has_a_kebab_case_name(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"operation\.name"):
        Module("billing").operation(name)


def test_an_operation_is_defined_once() -> None:
    module = Module("billing")
    module.operation("charge")(lambda: None)
    with pytest.raises(InvalidInput, match="already"):
        module.operation("charge")


def unannotated(parameters): ...  # type: ignore[no-untyped-def]


def two_models(a: Charge, b: Charge) -> None: ...


def call_first(call: Call, parameters: Charge) -> None: ...


def two_calls(a: Call, b: Call) -> None: ...


def unreadable(parameters: threading.Lock) -> None: ...


def unresolved(parameters: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("function", [unannotated, two_models, call_first, two_calls, unreadable, unresolved])
def test_what_cannot_be_called_is_refused_at_once(function: Any) -> None:
    with pytest.raises(InvalidInput, match=r"operation\.signature"):
        Module("billing").operation("charge")(function)


async def test_an_async_operation_gets_its_parameters_and_call() -> None:
    module = Module("billing")
    seen: list[Call] = []

    @module.operation("charge")
    async def charge(parameters: Charge, call: Call) -> Charged:
        seen.append(call)
        return Charged(amount=parameters.amount, order_id=parameters.order_id)

    assert await answer(module, "charge", {"amount": 5, "orderId": "o1"}) == {"amount": 5, "orderId": "o1"}
    assert seen == [CALL]


async def test_a_plain_operation_runs_in_a_thread_of_its_own() -> None:
    module = Module("billing")
    threads: list[int] = []

    @module.operation("charge")
    def charge(parameters: Charge) -> dict[str, int]:
        threads.append(threading.get_ident())
        return {"amount": parameters.amount}

    assert await answer(module, "charge", {"amount": 1}) == {"amount": 1}
    assert threads != [threading.get_ident()]


async def test_operations_may_take_and_give_anything_that_json_has() -> None:
    module = Module("shapes")

    @module.operation("points")
    def points(parameters: list[Point]) -> int:
        return sum(point.x for point in parameters)

    @module.operation("nothing")
    async def nothing(call: Call) -> None:
        assert call.request_id

    @module.operation("loose")
    def loose(parameters: dict[str, Any]):  # type: ignore[no-untyped-def]
        return Charged(**parameters)

    assert await answer(module, "points", [{"x": 1}, {"x": 2}]) == 3
    assert await answer(module, "nothing", {}) is None
    assert await answer(module, "loose", {"amount": 1, "order_id": "o"}) == {"amount": 1, "orderId": "o"}
    refused = await answer(module, "nothing", {"a/b": 1, "c": 2})
    assert (refused.code, refused.message, refused.pointer) == ("invalid", "nothing takes no parameters.", "/a~1b")
    assert [fault.pointer for fault in refused.faults] == ["/a~1b", "/c"]


async def test_parameters_that_do_not_fit_are_invalid_at_their_place() -> None:
    module = Module("billing")

    @module.operation("charge")
    def charge(parameters: Charge) -> None: ...

    refusal = await answer(module, "charge", {"amount": 0})
    assert (refusal.code, refusal.pointer) == ("invalid", "/amount")
    assert (await answer(module, "charge", {})).pointer == ""
    assert (await answer(module, "charge", [])).code == "invalid"


async def test_a_result_that_is_not_what_was_declared_is_the_operations_failure() -> None:
    module = Module("billing")

    @module.operation("wrong")
    def wrong() -> Charged:
        return {"amount": "many"}  # type: ignore[return-value]

    @module.operation("object")
    def object_() -> Any:
        return object()

    with pytest.raises(TypeError, match=r"does not fit its result: .*amount"):
        await answer(module, "wrong", {})
    with pytest.raises(TypeError, match="no JSON"):
        await answer(module, "object", {})


@pytest.mark.parametrize("code", ["", "No", "a b", "a..b", ".a"])
def test_a_failure_has_a_code_for_programs(code: str) -> None:
    with pytest.raises(ValueError, match="error code"):
        OperationFailed(code, "message")


def test_a_module_tells_what_it_offers() -> None:
    module = Module("billing", description="Charges.")

    @module.operation("charge")
    def charge(parameters: Charge) -> Charged:
        """Takes the money.

        And more.
        """
        return Charged(amount=parameters.amount, order_id="")

    event = registration_event(module)
    assert (event.type, event.source, event.subject) == ("module.registered", "mplp/modules/billing", "billing")
    operation = event.data["operations"]["charge"]
    assert operation["description"] == "Takes the money."
    assert set(operation["parameters"]["properties"]) == {"amount", "orderId"}
    assert event.data["requests"] == "mplp.module.requests.billing"


def test_the_latest_registration_counts_and_what_is_none_is_left_out() -> None:
    def event(data: Any, type_: str = "module.registered") -> SystemEvent:
        return SystemEvent(type=type_, data=data)

    found = registered_modules(
        [
            event({"module": "a", "operations": {"x": {}}}),
            event({"module": "a", "operations": {"y": {}}}),
            event({"module": "b", "operations": {}}, "module.renamed"),
            event({"module": 5, "operations": {}}),
            event({"module": "c", "operations": ["x"]}),
            event({"module": "d", "operations": {"x": 1}}),
            event("text"),
        ]
    )
    assert {name: list(each["operations"]) for name, each in found.items()} == {"a": ["y"]}
