"""What the extension operations decide. Pure.

An extension with an entry point is loaded by the host of extensions (`services.modules.extension.host`), in a process of its own: the
operation is answered when the host has said how it went. What the host says of one extension concerns no other; if it says nothing in
time, or that it went wrong, the extension is in error, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.extension.evolve import evolve
from services.modules.extension.operations import (
    Activate,
    Deactivate,
    Disable,
    ExtensionGone,
    ExtensionList,
    ExtensionResult,
    Get,
    Health,
    HealthResult,
    Install,
    List,
    Uninstall,
    Update,
)
from services.modules.extension.state import (
    EVENTS,
    HOST,
    LIFECYCLE,
    WAIT_US,
    Asked,
    Extension,
    ExtensionChecked,
    ExtensionEvent,
    ExtensionInstalled,
    ExtensionTransitioned,
    ExtensionUninstalled,
    ExtensionUpdated,
    HostAsked,
    Status,
    Wish,
)
from services.modules.lookup import changed, find, gone, has_text, listing, refuse_version, states_of
from services.modules.operation import (
    NOTHING_FOLLOWS,
    Answered,
    Decided,
    Done,
    Follow,
    Operation,
    Outcome,
    Pending,
    Refusal,
    Request,
    conflict,
    short_id,
    time_text,
)
from services.modules.outgoing import ask, asked_by
from streams.log.types import Due, Send, View
from streams.records import Json, ModuleMessage, derived_id


def install(view: View[Any], parameters: Install, request: Request) -> Outcome:
    """Makes an extension known; it does nothing until it is activated."""
    extension_id = f"{request.home}/extension-{short_id('extension', request.home, parameters.name)}"
    if view.state(extension_id) is not None:
        return conflict(f"The extension {parameters.name!r} is installed already, as {extension_id}.", "/name")
    event = ExtensionInstalled(
        name=parameters.name,
        version=parameters.version,
        entry_point=parameters.entry_point,
        description=parameters.description,
        config=parameters.config,
        capabilities=tuple(parameters.capabilities),
    )
    return changed(evolve, None, extension_id, request, ExtensionResult.of, event)


def activate(view: View[Any], parameters: Activate, request: Request) -> Outcome:
    """Sets an extension to work: its entry point is loaded, in a process of its own."""
    return _moved(view, parameters.extension_id, "active", "load", "", request)


def deactivate(view: View[Any], parameters: Deactivate, request: Request) -> Outcome:
    """Has an extension stop; a disabled one may be activated again."""
    return _moved(view, parameters.extension_id, "inactive", "unload", parameters.reason, request)


def disable(view: View[Any], parameters: Disable, request: Request) -> Outcome:
    """Has an extension stop, and not begin again until it is deactivated."""
    return _moved(view, parameters.extension_id, "disabled", "unload", parameters.reason, request)


def _moved(view: View[Any], extension_id: str, status: Status, wish: Wish, reason: str, request: Request) -> Outcome:
    state = find(view, Extension, extension_id, pointer="/extensionId")
    if isinstance(state, Refusal):
        return state
    busy = _busy(state, request)
    if busy is not None:
        return busy
    refused = LIFECYCLE.refusal(state.status, status, "/extensionId")
    if refused is not None:
        return refused
    if state.entry_point is not None and (wish == "load" or state.status in ("active", "error")):
        return _asking(state, wish, status, reason, request)
    event = ExtensionTransitioned(before=state.status, after=status, reason=reason)
    return changed(evolve, state, extension_id, request, ExtensionResult.of, event)


def health(view: View[Any], parameters: Health, request: Request) -> Outcome:
    """How an extension is: an active one is asked itself."""
    state = find(view, Extension, parameters.extension_id, pointer="/extensionId")
    if isinstance(state, Refusal):
        return state
    busy = _busy(state, request)
    if busy is not None:
        return busy
    if state.entry_point is not None and state.status == "active":
        return _asking(state, "check", "active", "", request)
    return Done(aggregate_id=state.extension_id, result=_health(state))


def uninstall(view: View[Any], parameters: Uninstall, request: Request) -> Outcome:
    """Forgets an extension; its history stays in the log."""
    state = find(view, Extension, parameters.extension_id, pointer="/extensionId")
    if isinstance(state, Refusal):
        return state
    if state.status == "active" or state.asked is not None:
        return conflict("An active extension is not uninstalled; deactivate it first.", "/extensionId")
    result = ExtensionGone(extension_id=state.extension_id, uninstalled=True)
    return gone(state.extension_id, result, ExtensionUninstalled(reason=parameters.reason))


def update(view: View[Any], parameters: Update, request: Request) -> Outcome:
    """Changes version, description or configuration."""
    state = find(view, Extension, parameters.extension_id, pointer="/extensionId")
    if isinstance(state, Refusal):
        return state
    refused = refuse_version(parameters.expected_version, state.revision, "extension")
    if refused is not None:
        return refused
    event = ExtensionUpdated(version=parameters.version, description=parameters.description, config=parameters.config)
    return changed(evolve, state, state.extension_id, request, ExtensionResult.of, event)


def get(view: View[Any], parameters: Get, request: Request) -> Outcome:
    """An extension as it is."""
    state = find(view, Extension, parameters.extension_id, pointer="/extensionId")
    return state if isinstance(state, Refusal) else Done(aggregate_id=state.extension_id, result=ExtensionResult.of(state))


def list_(view: View[Any], parameters: List, request: Request) -> Outcome:
    """Extensions in order of their ids, by state, capability, or part of the name."""
    wanted = (
        state
        for state in states_of(view, Extension)
        if parameters.status in (None, state.status)
        and (parameters.capability is None or parameters.capability in state.capabilities)
        and has_text(parameters.text, state.name, state.description)
    )
    return listing(view, parameters, ExtensionList, wanted, lambda state: state.extension_id, ExtensionResult.of)


# --- the host -------------------------------------------------------------------------------------------------------------


def _busy(state: Extension, request: Request) -> Outcome | None:
    if state.asked is None:
        return None
    if state.asked.caller.request_id == request.id:
        return Pending(aggregate_id=state.extension_id)
    return conflict(f"The host of extensions is asked to {state.asked.wish} it just now; try again.", "/extensionId")


def _asking(state: Extension, wish: Wish, status: Status, reason: str, request: Request) -> Pending:
    due_us = request.time_us + WAIT_US
    if request.caller.deadline_us is not None:
        due_us = max(request.time_us, min(due_us, request.caller.deadline_us - 500_000))
    asked = Asked(wish=wish, caller=request.caller, number=state.count + 1, due_us=due_us, status=status, reason=reason)
    event = HostAsked(asked=asked)
    after = evolve(state, event, state.extension_id, request.time_us)
    assert after is not None
    return Pending(
        aggregate_id=state.extension_id,
        events=(Decided(aggregate_id=state.extension_id, event=event),),
        effects=tuple(outstanding(after)),
    )


def outstanding(state: Extension) -> Iterator[Send]:
    """What the host was asked for and has not answered."""
    asked = state.asked
    if asked is not None:
        parameters = {"extensionId": state.extension_id, "entryPoint": state.entry_point, "config": dict(state.config)}
        yield ask(
            "extension", state.extension_id, str(asked.number), HOST, asked.wish, parameters, id=_request_id(state, asked),
            time_us=asked.due_us - WAIT_US, deadline_us=asked.due_us, correlation_id=asked.caller.correlation_id, key=HOST,
        )  # fmt: skip


def _request_id(state: Extension, asked: Asked) -> str:
    return derived_id("extension", state.extension_id, asked.number)


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """What the host has answered, or that a loaded extension has failed."""
    if message.kind == "notification" and message.operation == "failed" and isinstance(message.data, dict):
        state = view.state(str(message.data.get("extension_id")))
        if not isinstance(state, Extension) or state.status != "active":
            return NOTHING_FOLLOWS
        return _told(state, ExtensionTransitioned(before=state.status, after="error", reason=str(message.data.get("reason", ""))), None)
    if message.kind == "notification" and message.operation == "checked" and isinstance(message.data, dict):
        state = view.state(str(message.data.get("extension_id")))
        if not isinstance(state, Extension) or state.status != "active":
            return NOTHING_FOLLOWS
        return _told(state, ExtensionChecked(health=message.data.get("report")), None)
    if message.kind != "response":
        return None
    state = view.state(asked_by(message)[0])
    if not isinstance(state, Extension) or state.asked is None or message.causation_id != _request_id(state, state.asked):
        return NOTHING_FOLLOWS
    if message.status == "success":
        return _succeeded(state, state.asked, message.data, time_us)
    error = message.error
    return _failed(state, state.asked, "failed" if error is None else error.code, "" if error is None else error.message)


def fire(view: View[Any], state: Extension, timer: Due) -> Follow:
    """The host has not answered in time."""
    assert state.asked is not None
    message = "The host of extensions did not answer. `mplp up` runs one where a package with extensions is installed (MPLP_EXTENSIONS)."
    return _failed(state, state.asked, "unavailable", message)


def _succeeded(state: Extension, asked: Asked, answer: Json, time_us: int) -> Follow:
    if asked.wish != "check":
        return _told(state, ExtensionTransitioned(before=state.status, after=asked.status, reason=asked.reason), time_us)
    event = ExtensionChecked(health=answer)
    after = evolve(state, event, state.extension_id, time_us)
    assert after is not None
    result = _health(after).model_dump(mode="json", by_alias=True)
    decided = Decided(aggregate_id=state.extension_id, event=event)
    return Follow(events=(decided,), answers=(Answered(caller=asked.caller, aggregate_id=state.extension_id, answer=result),))


def _failed(state: Extension, asked: Asked, code: str, message: str) -> Follow:
    event = ExtensionTransitioned(before=state.status, after="error", reason=f"{code}: {message}")
    refusal = Refusal(code=code, message=message, pointer="/extensionId", retryable=code == "unavailable")
    answered = Answered(caller=asked.caller, aggregate_id=state.extension_id, answer=refusal)
    return Follow(events=(Decided(aggregate_id=state.extension_id, event=event),), answers=(answered,))


def _told(state: Extension, event: ExtensionEvent, time_us: int | None) -> Follow:
    decided = Decided(aggregate_id=state.extension_id, event=event)
    if state.asked is None or time_us is None:
        return Follow(events=(decided,))
    after = evolve(state, event, state.extension_id, time_us)
    assert after is not None
    result = ExtensionResult.of(after).model_dump(mode="json", by_alias=True)
    return Follow(events=(decided,), answers=(Answered(caller=state.asked.caller, aggregate_id=state.extension_id, answer=result),))


def _health(state: Extension) -> HealthResult:
    report = state.health if state.status == "active" else None
    says = report.get("healthy", True) if isinstance(report, Mapping) else True
    return HealthResult(
        extension_id=state.extension_id,
        status=state.status,
        healthy=state.status == "active" and says is not False,
        detail=state.detail,
        report=report,
        checked_at=None if state.checked_us is None else time_text(state.checked_us),
    )


MODULE = BuiltIn(
    operations={
        "install": Operation(parameters=Install, result=ExtensionResult, decide=install),
        "activate": Operation(parameters=Activate, result=ExtensionResult, decide=activate),
        "deactivate": Operation(parameters=Deactivate, result=ExtensionResult, decide=deactivate),
        "disable": Operation(parameters=Disable, result=ExtensionResult, decide=disable),
        "update": Operation(parameters=Update, result=ExtensionResult, decide=update),
        "uninstall": Operation(parameters=Uninstall, result=ExtensionGone, decide=uninstall),
        "get": Operation(parameters=Get, result=ExtensionResult, decide=get),
        "list": Operation(parameters=List, result=ExtensionList, decide=list_, gathers=True),
        "health": Operation(parameters=Health, result=HealthResult, decide=health),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(
        Aggregate(
            state=Extension, due=lambda state: None if state.asked is None else state.asked.due_us, fire=fire, outstanding=outstanding
        ),
    ),
    take=take,
    lifecycles=(LIFECYCLE,),
)
