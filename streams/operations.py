"""The operations of the built-in modules, as contract data: module name → operation names.

The orchestrator validates definitions against it without importing any module; a test holds the implementations against it. Besides: the
operations by which built-in modules and the orchestrator talk to each other.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Notification to the orchestrator: tell an aggregate what happens in an execution from then on; and what it tells.
MONITOR, COLLECT = "monitor", "collect"
#: Notifications of the orchestrator to the module confirm: a step asks people, and it does so no more.
APPROVAL_OPENED, APPROVAL_CLOSED = "approval-opened", "approval-closed"
#: Requests of built-in modules to the orchestrator: check a definition, tell how an execution is.
CHECK, STATUS = "check", "status"
#: Request of a process of a user's module to the orchestrator: the operation of a step lives; is its answer still wanted?
HEARTBEAT = "heartbeat"

#: What each module offers.
CONTRACT: Mapping[str, tuple[str, ...]] = {
    "context": (
        "create-context", "get-context", "update-context", "list-contexts", "search-contexts", "transition-lifecycle", "delete-context",
    ),
    "plan": (
        "create-plan", "get-plan", "list-plans", "update-plan", "validate-plan", "approve-plan", "activate-plan", "run-plan", "update-task",
        "remove-task", "complete-plan", "cancel-plan", "delete-plan",
    ),
    "role": (
        "create-role", "get-role", "update-role", "assign-roles", "revoke-role", "check-permission", "separate-duties", "list-roles",
        "delete-role",
    ),
    "confirm": ("create", "approve", "reject", "delegate", "escalate", "cancel", "resubmit", "update", "get", "list"),
    "trace": ("start-monitoring", "record", "stop-monitoring", "get-trace", "analyze-trace", "list-traces"),
    "extension": ("install", "activate", "deactivate", "disable", "update", "uninstall", "get", "list", "health"),
    "dialog": (
        "facilitate-communication", "get-dialog", "list-dialogs", "update-dialog", "send-message", "pass-turn", "history",
        "add-participants", "remove-participants", "end",
    ),
    "collab": (
        "create", "join", "leave", "assign-task", "update-task", "propose", "decide", "update", "end", "get", "list",
    ),
    "network": (
        "create-network", "get-network", "list-networks", "update-network", "delete-network", "add-node", "remove-node", "update-node",
        "heartbeat", "connect", "disconnect", "route-message", "topology", "health",
    ),
    "core": (
        "create-workflow", "get-workflow", "list-workflows", "delete-workflow", "execute-workflow", "get-workflow-status", "pause",
        "resume", "cancel",
    ),
    "hub": (
        "register", "unregister", "list", "get", "drain", "start", "stop", "coordinate", "send", "broadcast", "subscribe", "unsubscribe",
        "subscriptions", "report", "checksum", "state", "rebuild",
    ),
}  # fmt: skip
