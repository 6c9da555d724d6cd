"""The states that aggregates of the built-in modules have."""

from __future__ import annotations

from typing import TypeAlias

from services.modules.collab.state import Collaboration
from services.modules.confirm.state import Confirmation
from services.modules.context.state import Context
from services.modules.core.state import Inquiry, Workflow
from services.modules.dialog.state import Dialog
from services.modules.extension.state import Extension
from services.modules.gather.state import Gathering
from services.modules.hub.state import Broadcast, Exchange, Registry
from services.modules.network.state import Network
from services.modules.plan.state import DeletedPlan, Plan
from services.modules.role.state import RoleBook
from services.modules.schedule.state import Schedules
from services.modules.trace.state import Trace, Watches
from streams.log.freeze import StateFormat

ModuleState: TypeAlias = (
    Context | RoleBook | Plan | Trace | Watches | Dialog | Schedules | Confirmation | Collaboration | Network | Extension | Workflow
    | Inquiry | Gathering | Registry | Exchange | Broadcast | DeletedPlan
)  # fmt: skip

#: How they are written into snapshots.
STATES: StateFormat[ModuleState] = StateFormat(
    Context, RoleBook, Plan, Trace, Watches, Dialog, Schedules, Confirmation, Collaboration, Network, Extension, Workflow,
    Inquiry, Gathering, Registry, Exchange, Broadcast, DeletedPlan,
)  # fmt: skip
