"""One request of a user's module carried out: the operation called, whatever comes of it made an answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime

import structlog

from services.modules.call import Call, Lifeline, OperationCancelled, Outlet
from services.modules.operation import Refusal
from services.modules.user_module import Module, OperationFailed, UserOperation
from streams import limits
from streams.errors import BackboneError, Fault
from streams.records import Json, ModuleMessage, now

_log = structlog.get_logger("modules.worker")


def operation_of(module: Module, request: ModuleMessage) -> UserOperation | None:
    """What a request or broadcast calls; None: nothing."""
    return module.listener(request.type) if request.kind == "broadcast" else module.operations.get(request.operation)


async def carry_out(
    module: Module,
    request: ModuleMessage,
    executor: Executor,
    *,
    lifeline: Lifeline | None = None,
    details: Json = None,
    outlet: Outlet | None = None,
    clock: Callable[[], datetime] = now,
) -> Json | Refusal:
    """The operation's result as JSON, or why there is none; never raises, but for cancellation. What is not given is as in `Call`.

    What is no error of the operation's own making (`OperationFailed`, an error of this product) is `internal`, with its trace in the log.
    """
    operation = operation_of(module, request)
    if operation is None:
        offered = f" There are {', '.join(sorted(module.operations))}." if request.kind != "broadcast" else ""
        return Refusal(code="operation.unknown", message=f"There is no operation {module.name}.{request.operation}.{offered}")
    call = Call(
        request_id=request.id,
        operation=request.operation,
        execution_id=request.execution_id,
        step_id=request.step_id,
        attempt=request.attempt,
        deadline=request.deadline,
        correlation_id=request.correlation_id,
        module=module.name,
        details=details,
        lifeline=lifeline or Lifeline(silence_ms=operation.silence_ms),
        outlet=outlet,
        clock=clock,
    )
    try:
        return await operation.answer(request.data, call, executor)
    except OperationFailed as error:
        return Refusal(code=error.code, message=error.message[: limits.ERROR_CHARACTERS_MAX], retryable=error.retryable)
    except BackboneError as error:
        text = error.message[: limits.ERROR_CHARACTERS_MAX]
        return Refusal(code=error.code, message=text, pointer=error.pointer, retryable=error.fault is Fault.PEER)
    except OperationCancelled as error:
        return Refusal(code="operation.cancelled", message=str(error))
    except Exception as error:  # noqa: BLE001  whatever a user's operation raises becomes an error of the response
        _log.exception("operation.failed", module=module.name, operation=request.operation, request=request.id)
        return Refusal(code="internal", message=f"{type(error).__name__}: {error}"[: limits.NAME_CHARACTERS_MAX])
