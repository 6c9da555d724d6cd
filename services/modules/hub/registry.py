"""What the hub decides about its registry: modules with their processes and leases, their life, and who wants which messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.modules.hub.broadcasting import outstanding_for
from services.modules.hub.evolve import evolve
from services.modules.hub.operations import (
    BUILT_IN,
    REGISTERED,
    GetModule,
    ListModules,
    ModuleGone,
    ModuleList,
    ModuleResult,
    Move,
    Register,
    Registered,
    Subscribe,
    SubscriptionList,
    SubscriptionResult,
    Subscriptions,
    Unregister,
    Unsubscribe,
)
from services.modules.hub.state import (
    LIFECYCLE,
    MODULES_MAX,
    REGISTRY,
    SUBSCRIBERS_MAX,
    HubEvent,
    InstanceGone,
    LeaseRenewed,
    ModuleRegistered,
    ModuleUnregistered,
    Registration,
    Registry,
    Subscribed,
    Subscription,
    Unsubscribed,
    Wish,
    WishChanged,
)
from services.modules.lookup import changed, has_text, page
from services.modules.operation import Decided, Done, Follow, Outcome, Refusal, Request, conflict, invalid, not_found, time_text
from streams.log.types import Due, View
from streams.operations import CONTRACT
from streams.records import Json


def registry_of(view: View[Any]) -> Registry:
    """The registry as it is."""
    state = view.state(REGISTRY)
    return state if isinstance(state, Registry) else Registry()


def register(view: View[Any], parameters: Register, request: Request) -> Outcome:
    """A process says what its module offers, and that it lives until its lease ends; said again, it renews the lease."""
    if parameters.module in CONTRACT:
        return conflict(f"{parameters.module} is a built-in module.", "/module")
    registry = registry_of(view)
    known = registry.modules.get(parameters.module)
    if known is None and len(registry.modules) >= MODULES_MAX:
        return conflict(f"There are at most {MODULES_MAX} modules.", "/module")
    instance = parameters.instance or parameters.module
    lease_us = None if parameters.lease is None else request.time_us + parameters.lease * 1000
    renewed = LeaseRenewed(module=parameters.module, instance=instance, lease_us=lease_us, detail=parameters.detail)
    events: tuple[HubEvent, ...]
    if known is not None and (parameters.operations is None or _is_as_before(parameters, known)):
        events = (renewed,)
    elif parameters.operations is None:
        return invalid("The module is not known: tell its operations.", "/operations")
    else:
        told = ModuleRegistered(
            module=parameters.module,
            instance=instance,
            lease_us=lease_us,
            description=parameters.description,
            operations=parameters.operations,
        )
        events = (told,) if parameters.detail is None else (told, renewed)

    def show(after: Registry) -> Registered:
        return Registered(
            module=parameters.module,
            instance=instance,
            wish=after.modules[parameters.module].wish,
            lease_until=None if lease_us is None else time_text(lease_us),
        )

    return changed(evolve, registry, REGISTRY, request, show, *events)


def _is_as_before(parameters: Register, known: Registration) -> bool:
    return parameters.operations == known.operations and parameters.description in ("", known.description)


def unregister(view: View[Any], parameters: Unregister, request: Request) -> Outcome:
    """A process of a module is gone, or the module is not offered any more at all."""
    registry = registry_of(view)
    known = registry.modules.get(parameters.module)
    if known is None:
        if parameters.module in CONTRACT:
            return conflict(f"{parameters.module} is a built-in module.", "/module")
        return _unknown(parameters.module)
    event: HubEvent = ModuleUnregistered(module=parameters.module, reason=parameters.reason)
    if parameters.instance is not None:
        if parameters.instance not in known.instances:
            return not_found("instance", parameters.instance, "/instance")
        event = InstanceGone(module=parameters.module, instance=parameters.instance)
    result = ModuleGone(module=parameters.module, instance=parameters.instance, unregistered=True)
    return changed(evolve, registry, REGISTRY, request, lambda _: result, event)


def move(wish: Wish) -> Any:
    """The operation that has the processes of a module do something else."""

    def decide(view: View[Any], parameters: Move, request: Request) -> Outcome:
        registry = registry_of(view)
        known = registry.modules.get(parameters.module)
        if known is None:
            if parameters.module in CONTRACT:
                return conflict(f"{parameters.module} is built in: it serves as long as the core does.", "/module")
            return _unknown(parameters.module)
        refused = LIFECYCLE.refusal(known.wish, wish, "/module")
        if refused is not None:
            return refused
        event = WishChanged(module=known.module, before=known.wish, after=wish, reason=parameters.reason)
        return changed(evolve, registry, REGISTRY, request, lambda after: _registered(after.modules[known.module], request.time_us), event)

    decide.__doc__ = {
        "serving": "Has the processes of a module take requests again.",
        "draining": "Has the processes of a module take no more requests, and end what runs; requests wait in its inbox.",
        "stopped": "Has the processes of a module end, after what runs.",
    }[wish]
    return decide


def list_modules(view: View[Any], parameters: ListModules, request: Request) -> Outcome:
    """Modules in order of their names: built-in and registered ones, with what they offer and how they are."""
    wanted = [
        found
        for found in _all(view, request.time_us, brief=parameters.brief)
        if parameters.kind in (None, found.kind)
        and parameters.status in (None, found.status)
        and (parameters.operation is None or parameters.operation in found.operations)
        and has_text(parameters.text, found.module, found.description)
    ]
    shown, total, following = page(wanted, lambda found: found.module, parameters)
    return Done(aggregate_id=None, result=ModuleList(modules=shown, total=total, next=following, complete=True, missing_partitions=[]))


def _described(operations: Mapping[str, Json]) -> dict[str, Json]:
    return {name: {"description": each.get("description", "") if isinstance(each, Mapping) else ""} for name, each in operations.items()}


def get_module(view: View[Any], parameters: GetModule, request: Request) -> Outcome:
    """A module with its operations, their JSON Schemas, and its processes."""
    from services.modules.catalogue import MODULES  # the catalogue knows the hub

    registered = registry_of(view).modules.get(parameters.module)
    if parameters.module not in MODULES and registered is None:
        return _unknown(parameters.module)
    found = _built_in(parameters.module) if registered is None else _registered(registered, request.time_us)
    return Done(aggregate_id=None, result=found)


def _unknown(module: str) -> Refusal:
    return Refusal(code="module.unknown", message=f"There is no module {module!r}.", pointer="/module")


def _all(view: View[Any], now_us: int, *, brief: bool) -> list[ModuleResult]:
    from services.modules.catalogue import MODULES  # the catalogue knows the hub

    registered = [_registered(each, now_us) for each in registry_of(view).modules.values()]
    if brief:
        registered = [each.model_copy(update={"operations": _described(each.operations)}) for each in registered]
    return [*(_built_in(name, brief=brief) for name in MODULES), *registered]


def _built_in(name: str, *, brief: bool = False) -> ModuleResult:
    from services.modules.catalogue import MODULES, describe, summary  # the catalogue knows the hub

    told = {each: {"description": operation.summary()} for each, operation in MODULES[name].operations.items()} if brief else None
    operations = told or describe(name) or {}
    return ModuleResult(
        module=name, kind=BUILT_IN, status="serving", description=summary(name), operations=operations, instances={}, registered_at=None
    )  # fmt: skip


def _registered(found: Registration, now_us: int) -> ModuleResult:
    live = {each.instance: each for each in found.instances.values() if each.lease_us is None or each.lease_us > now_us}
    return ModuleResult(
        module=found.module,
        kind=REGISTERED,
        status=found.wish if live or found.wish == "stopped" else "silent",
        description=found.description,
        operations=dict(found.operations),
        instances={
            name: {"leaseUntil": None if each.lease_us is None else time_text(each.lease_us), "detail": each.detail}
            for name, each in live.items()
        },
        registered_at=time_text(found.registered_us),
    )


# --- leases ---------------------------------------------------------------------------------------------------------------


def due(state: Registry) -> int | None:
    """When the next lease lapses."""
    leases = (each.lease_us for module in state.modules.values() for each in module.instances.values() if each.lease_us is not None)
    return min(leases, default=None)


def fire(view: View[Any], state: Registry, timer: Due) -> Follow:
    """Processes that did not renew their lease are gone."""
    lapsed = [
        InstanceGone(module=module.module, instance=each.instance, lapsed=True)
        for module in state.modules.values()
        for each in module.instances.values()
        if each.lease_us is not None and each.lease_us <= timer.time_us
    ]
    return Follow(events=tuple(Decided(aggregate_id=REGISTRY, event=event, subject=event.module) for event in lapsed))


# --- subscribers ----------------------------------------------------------------------------------------------------------


def subscribe(view: View[Any], parameters: Subscribe, request: Request) -> Outcome:
    """Wants messages of these types; what came while the subscriber was away, and may still be delivered, is sent again."""
    registry = registry_of(view)
    if parameters.subscriber not in registry.subscribers and len(registry.subscribers) >= SUBSCRIBERS_MAX:
        return conflict(f"There are at most {SUBSCRIBERS_MAX} subscribers.", "/subscriber")
    if parameters.module and parameters.subscriber not in registry.modules:
        return _unknown(parameters.subscriber)
    wanted = Subscription(
        subscriber=parameters.subscriber, types=tuple(parameters.types), source=parameters.source, is_module=parameters.module
    )
    again = tuple(outstanding_for(view, parameters.subscriber))
    result = SubscriptionResult.of(wanted, len(again))
    if registry.subscribers.get(parameters.subscriber) == wanted:
        return Done(aggregate_id=REGISTRY, result=result, effects=again)
    return changed(evolve, registry, REGISTRY, request, lambda _: result, Subscribed(subscription=wanted), effects=again)


def unsubscribe(view: View[Any], parameters: Unsubscribe, request: Request) -> Outcome:
    """Wants no messages any more."""
    registry = registry_of(view)
    known = registry.subscribers.get(parameters.subscriber)
    if known is None:
        return not_found("subscriber", parameters.subscriber, "/subscriber")
    return changed(
        evolve, registry, REGISTRY, request, lambda _: SubscriptionResult.of(known, 0), Unsubscribed(subscriber=parameters.subscriber)
    )


def subscriptions(view: View[Any], parameters: Subscriptions, request: Request) -> Outcome:
    """Who wants which messages, in order of the subscribers' names."""
    wanted = (each for each in registry_of(view).subscribers.values() if parameters.type is None or parameters.type in each.types)
    shown, total, following = page(wanted, lambda each: each.subscriber, parameters)
    entries = [SubscriptionResult.of(each, 0) for each in shown]
    return Done(
        aggregate_id=None, result=SubscriptionList(subscriptions=entries, total=total, next=following, complete=True, missing_partitions=[])
    )
