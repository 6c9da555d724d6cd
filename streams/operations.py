"""The operations of the ten built-in modules that must exist, as contract data: module name → operation names.

The orchestrator validates definitions against it without importing any module; a test in `services/modules` holds the
implementations against it. `AVAILABLE` has what this version implements.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What each module must offer in the end.
CONTRACT: Mapping[str, tuple[str, ...]] = {
    "context": ("create-context", "get-context", "update-context", "list-contexts", "transition-lifecycle", "delete-context"),
    "plan": ("create-plan", "get-plan", "validate-plan", "approve-plan", "activate-plan", "update-task", "complete-plan", "cancel-plan"),
    "role": ("create-role", "assign-roles", "revoke-role", "check-permission", "list-roles"),
    "confirm": ("create", "approve", "reject", "delegate", "escalate", "get", "list"),
    "trace": ("start-monitoring", "record", "stop-monitoring", "get-trace", "analyze-trace"),
    "extension": ("install", "activate", "deactivate", "uninstall", "list", "health"),
    "dialog": ("facilitate-communication", "send-message", "history", "add-participants", "end"),
    "collab": ("create", "join", "leave", "assign-task", "decide", "end", "get"),
    "network": ("create-network", "add-node", "remove-node", "connect", "route-message", "topology", "health"),
    "core": ("create-workflow", "execute-workflow", "get-workflow-status", "pause", "resume", "cancel"),
}
