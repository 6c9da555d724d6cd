"""The machine of the built-in modules: requests in; the request, what happened, and the response out, as one decision. Pure.

Theory of operation. A request has one home: that of the aggregate which its parameters name, else the one it came with
(execution id, subject, caller). Where that home is not local the request is sent on, once, and nothing is decided. Where it
is, three kinds of records go into the log together: the request, the module's events, the response. So whatever was answered
was also done, and whatever was done was answered. The answer to a request is remembered under the request's id: a repeat
decides nothing and gets the same answer again.

Some operations answer later, since they ask others first (`Pending`): the request and what has begun go into the log, and the
aggregate keeps the caller. Answers to what a module has asked, notifications and timers lead to events (`Follow`), and in the end
to the response. What such a state still waits for is sent again by a new owner.

Request and response belong to the aggregate that they are about; if there is none (a list, a refusal of an unknown id) to
`<home>/requests`, which has no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from services.modules import answers, settling
from services.modules.built_in import Aggregate, BuiltIn
from services.modules.catalogue import EVERY
from services.modules.deciding import Handling
from services.modules.emitting import following, no_request
from services.modules.operation import NOTHING_FOLLOWS, Decided, Follow, adapter, types_of
from services.modules.states import STATES, ModuleState
from streams.log.types import NOTHING, Decision, Due, Entry, Input, Received, Remembered, Send, View
from streams.records import ModuleMessage, Record, SystemEvent, to_micros
from streams.topics import MESSAGES, MODULE_SNAPSHOTS, REQUESTS

#: End of the name on the broker of the inbox that callers outside of the host write to, whatever its prefix.
_INBOX_SUFFIX = REQUESTS.removeprefix("mplp")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fold:
    """How events of one type are folded."""

    event_class: type[Any]
    module: BuiltIn


_FOLDS: Mapping[str, _Fold] = {
    event_type: _Fold(event_class=event_class, module=module)
    for module in EVERY.values()
    for event_class in module.events
    for event_type in types_of(event_class)
}
_KINDS: Mapping[type[Any], tuple[str, Aggregate]] = {
    kind.state: (name, kind) for name, module in EVERY.items() for kind in module.aggregates
}


class ModulesMachine:
    """`streams.log.types.Machine` over the aggregates of all built-in modules."""

    name = "modules"
    log = MESSAGES
    snapshots = MODULE_SNAPSHOTS
    inboxes: tuple[str, ...] = (REQUESTS,)
    source_logs: tuple[str, ...] = ()
    states = STATES

    def decide(self, view: View[ModuleState], input: Input) -> Decision:
        """See `Machine.decide`."""
        match input:
            case Due():
                return self._fired(view, input)
            case Received(record=ModuleMessage(kind="request") as request):
                outside = input.position is not None and input.position.topic.endswith(_INBOX_SUFFIX)
                return Handling(EVERY, view, request, input.time_us, outside).decision()
            case Received(record=ModuleMessage() as message):
                return self._told(view, message, input.time_us)
            case Received(record=record):
                return no_request(record, input.time_us)
            case _:
                assert_never(input)

    def _fired(self, view: View[ModuleState], timer: Due) -> Decision:
        state = view.state(timer.aggregate_id)
        name, kind = _KINDS.get(type(state), ("", None))
        if state is None or kind is None:
            return NOTHING
        if kind.due is not None and kind.fire is not None and kind.due(state) is not None:
            follow: Follow = kind.fire(view, state, timer)
        elif settling.due(kind, state) is not None:
            follow = Follow(events=(Decided(aggregate_id=timer.aggregate_id, event=settling.Settled()),))
        else:
            follow = NOTHING_FOLLOWS
        return following(view, _source(name), follow, timer.time_us, None, EVERY)

    def _told(self, view: View[ModuleState], message: ModuleMessage, time_us: int) -> Decision:
        """A notification, or the answer to what a module has asked."""
        name = message.target_module or ""
        module = EVERY.get(name)
        follow: Follow | None = None if module is None or module.take is None else module.take(view, message, time_us)
        return no_request(message, time_us) if follow is None else following(view, _source(name), follow, time_us, message, EVERY)

    def evolve(self, state: ModuleState | None, entry: Entry) -> ModuleState | None:
        """See `Machine.evolve`: requests and responses change nothing, nor do events that this version does not know."""
        event = entry.event
        if not isinstance(event, SystemEvent) or event.aggregate_id is None:
            return state
        if event.type == settling.Settled.TYPE:
            settled: ModuleState | None = None if state is None else settling.settle(state)
            return settled
        fold = _FOLDS.get(event.type)
        if fold is None:
            return state
        domain_event = adapter(fold.event_class).validate_python(event.data)
        after: ModuleState | None = fold.module.evolve(state, domain_event, event.aggregate_id, to_micros(event.time))
        return after

    def due(self, state: ModuleState) -> int | None:
        """See `Machine.due`."""
        _, kind = _KINDS.get(type(state), ("", None))
        if kind is None:
            return None
        own: int | None = None if kind.due is None else kind.due(state)
        return settling.due(kind, state) if own is None else own

    def outstanding(self, state: ModuleState) -> Iterable[Send]:
        """See `Machine.outstanding`: what states wait for. A caller that got no answer repeats its request."""
        _, kind = _KINDS.get(type(state), ("", None))
        found: Iterable[Send] = () if kind is None or kind.outstanding is None else kind.outstanding(state)
        return found

    def ended(self, state: ModuleState) -> int | None:
        """See `Machine.ended`: what ended is listed for a day, and leaves memory then."""
        _, kind = _KINDS.get(type(state), ("", None))
        return None if kind is None else settling.ended(kind, state)

    def rests(self, state: ModuleState, time_us: int) -> bool:
        """See `Machine.rests`: it waits for nobody, and has no timer but that which ends its listing."""
        _, kind = _KINDS.get(type(state), ("", None))
        return kind is not None and settling.rests(kind, state, time_us)

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """See `Machine.remember`: the answer to each request."""
        event = entry.event
        if isinstance(event, ModuleMessage) and event.kind == "response" and event.causation_id is not None:
            yield Remembered(
                key=answers.memory_key(event.causation_id),
                value=answers.essentials(event),
                expires_us=answers.remembered_until(event),
            )

    def concerns(self, record: Record) -> bool:
        """See `Machine.concerns`: no other machine's log is read."""
        return False


def _source(name: str) -> str:
    return EVERY[name].source or f"mplp/modules/{name}"
