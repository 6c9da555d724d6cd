"""One request of a user's module carried out: the operation called, whatever comes of it made an answer."""

from __future__ import annotations

from concurrent.futures import Executor

import structlog

from services.modules.operation import Refusal
from services.modules.user_module import Call, Module, OperationFailed
from streams import limits
from streams.errors import BackboneError, Fault
from streams.records import Json, ModuleMessage

_log = structlog.get_logger("modules.worker")


async def carry_out(module: Module, request: ModuleMessage, executor: Executor) -> Json | Refusal:
    """The operation's result as JSON, or why there is none; never raises, but for cancellation.

    What is no error of the operation's own making (`OperationFailed`, an error of this product) is `internal`, with its trace in the log.
    """
    operation = module.listener(request.type) if request.kind == "broadcast" else module.operations.get(request.operation)
    if operation is None:
        return Refusal(code="operation.unknown", message=f"There is no operation {module.name}.{request.operation}.")
    call = Call(
        request_id=request.id,
        operation=request.operation,
        execution_id=request.execution_id,
        step_id=request.step_id,
        attempt=request.attempt,
        deadline=request.deadline,
        correlation_id=request.correlation_id,
    )
    try:
        return await operation.answer(request.data, call, executor)
    except OperationFailed as error:
        return Refusal(code=error.code, message=error.message, retryable=error.retryable)
    except BackboneError as error:
        return Refusal(code=error.code, message=error.message, pointer=error.pointer, retryable=error.fault is Fault.PEER)
    except Exception as error:  # noqa: BLE001  whatever a user's operation raises becomes an error of the response
        _log.exception("operation.failed", module=module.name, operation=request.operation, request=request.id)
        return Refusal(code="internal", message=f"{type(error).__name__}: {error}"[: limits.NAME_CHARACTERS_MAX])
