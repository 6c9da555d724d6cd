"""The fold of an extension's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.extension.state import (
    Extension,
    ExtensionChecked,
    ExtensionEvent,
    ExtensionInstalled,
    ExtensionTransitioned,
    ExtensionUninstalled,
    ExtensionUpdated,
    HostAsked,
)


def evolve(state: Extension | None, event: ExtensionEvent, aggregate_id: str, time_us: int) -> Extension | None:
    """The extension after `event`; None: there is none."""
    if isinstance(event, ExtensionInstalled):
        return Extension(
            extension_id=aggregate_id,
            name=event.name,
            version=event.version,
            entry_point=event.entry_point,
            description=event.description,
            config=event.config,
            capabilities=event.capabilities,
            status="installed",
            revision=1,
            created_us=time_us,
            updated_us=time_us,
        )
    if state is None or isinstance(event, ExtensionUninstalled):
        return None
    match event:
        case HostAsked():
            return replace(state, asked=event.asked, count=state.count + 1)
        case ExtensionChecked():
            return replace(state, asked=None, health=event.health, checked_us=time_us)
        case ExtensionUpdated():
            return replace(
                state,
                revision=state.revision + 1,
                updated_us=time_us,
                version=state.version if event.version is None else event.version,
                description=state.description if event.description is None else event.description,
                config=state.config if event.config is None else event.config,
            )
        case ExtensionTransitioned():
            return replace(
                state, asked=None, status=event.after, detail=event.reason, revision=state.revision + 1, updated_us=time_us
            )  # fmt: skip
        case _:
            assert_never(event)
