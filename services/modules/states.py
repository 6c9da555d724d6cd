"""The states that aggregates of the built-in modules have."""

from __future__ import annotations

from typing import TypeAlias

from services.modules.context.state import Context
from services.modules.dialog.state import Dialog
from services.modules.plan.state import Plan
from services.modules.role.state import RoleBook
from services.modules.schedule.state import Schedules
from services.modules.trace.state import Trace
from streams.log.freeze import StateFormat

ModuleState: TypeAlias = Context | RoleBook | Plan | Trace | Dialog | Schedules

#: How they are written into snapshots.
STATES: StateFormat[ModuleState] = StateFormat(Context, RoleBook, Plan, Trace, Dialog, Schedules)
