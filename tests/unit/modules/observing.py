"""Watches the states of everything that has a life cycle, and notes which arrows of which table are taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.modules.catalogue import MODULES
from services.modules.collab.state import Collaboration
from services.modules.confirm.state import Confirmation
from services.modules.context.state import Context
from services.modules.dialog.state import Dialog
from services.modules.extension.state import Extension
from services.modules.hub.state import Exchange, Registry
from services.modules.lifecycle import Lifecycle
from services.modules.network.state import Network
from services.modules.plan.state import Plan
from services.modules.role.state import RoleBook
from services.modules.trace.state import Trace

LIFECYCLES: dict[str, Lifecycle] = {lifecycle.noun: lifecycle for module in MODULES.values() for lifecycle in module.lifecycles}


def lives(state: Any) -> Iterator[tuple[str, str, str]]:
    """What of a state has a life cycle: noun, id, status."""
    match state:
        case Context(context_id=id, status=status):
            yield "context", id, status
        case Plan(plan_id=id, status=status, tasks=tasks):
            yield "plan", id, status
            yield from (("task", f"{id}/{name}", task.status) for name, task in tasks.items())
        case RoleBook(roles=roles):
            yield from (("role", id, role.status) for id, role in roles.items())
        case Trace(trace_id=id, status=status):
            yield "trace", id, status
        case Dialog(dialog_id=id, status=status):
            yield "dialog", id, status
        case Confirmation(confirm_id=id, status=status):
            yield "confirmation", id, status
        case Collaboration(collab_id=id, status=status, tasks=shared):
            yield "collaboration", id, status
            yield from (("shared task", f"{id}/{name}", task.status) for name, task in shared.items())
        case Network(network_id=id, nodes=nodes):
            yield from (("node", f"{id}/{name}", node.status) for name, node in nodes.items())
        case Extension(extension_id=id, status=status):
            yield "extension", id, status
        case Registry(modules=modules):
            yield from (("module", name, module.wish) for name, module in modules.items())
        case Exchange(exchange_id=id, status=status, calls=calls):
            yield "coordination", id, status
            yield from (("call", f"{id}/{name}", call.status) for name, call in calls.items())


class Observer:
    """Called with each state that an event left behind (`MachineRunner.check_state`)."""

    def __init__(self) -> None:
        self.taken: set[tuple[str, str, str]] = set()
        self._known: dict[tuple[str, str], str] = {}

    def __call__(self, state: Any) -> None:
        for noun, id, status in lives(state):
            lifecycle = LIFECYCLES[noun]
            before = self._known.get((noun, id))
            if before is None:
                assert status in lifecycle.initial, f"a {noun} begins {status}"
            elif before != status:
                assert status in lifecycle.table[before], f"a {noun} went from {before} to {status}"
                self.taken.add((noun, before, status))
            self._known[noun, id] = status
