"""Published workflow definitions: applied under their id, so that starts, triggers and child steps can name them.

They lie on the control topic under three kinds of keys: `<id>@<hash>` pins the content that an execution runs, for ever;
`<id>@version:<version>` is the newest that was applied with that version; `<id>` is the newest of all. `<id>` is written last:
an apply that stops half way has published nothing. What is written is also an event (`workflow.applied`, `workflow.deleted`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from streams.bus.reached import wait_reached
from streams.definitions import VERSION_MARK, definition_hash, unwrap
from streams.errors import InvalidInput, NotFound
from streams.limits import ID_CHARACTERS_MAX
from streams.records import ControlRecord, Json, SystemEvent, iso
from streams.topics import CONTROL_WORKFLOWS
from streams.triggers import triggers_shown

if TYPE_CHECKING:
    from streams.bus.bus import Bus

APPLY_TIMEOUT_S = 5.0
_SOURCE = "mplp/workflows"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWorkflow:
    """A published definition. `revision` counts the changes under its id from 1."""

    id: str
    version: str  #: of the definition, as its author wrote it
    revision: int
    hash: str
    definition: Mapping[str, Any]
    who: str
    why: str
    time: str  #: RFC 3339

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `triggers` is what starts it by itself, with the next time of each schedule."""
        told = {name: getattr(self, name) for name in ("id", "version", "revision", "hash", "who", "why", "time")}
        return told | {"triggers": triggers_shown(self.definition, time.time_ns() // 1000), "definition": self.definition}


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedWorkflow:
    """What an apply or delete did: `changed` is false if it was so already. `missing`: live cores that have not said that they have it."""

    id: str
    version: str
    revision: int
    hash: str
    changed: bool
    cores: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id, "version": self.version, "revision": self.revision, "hash": self.hash,
            "changed": self.changed, "cores": list(self.cores), "missing": list(self.missing),
        }  # fmt: skip


async def apply(bus: Bus, documents: Sequence[Json], *, who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> list[AppliedWorkflow]:
    """Publishes definitions. Returns when every live core has them, or after `timeout` seconds with the names of those that have not.

    What is published already, word for word, is no new revision. Raises `InvalidInput` (`workflow.invalid`) for a document without
    an id, before anything is written; whatever else is wrong with a definition is for those who can check it to find before, and
    for a start to refuse.
    """
    workflows = [_checked(document) for document in documents]
    stored = await _records(bus)
    found: list[AppliedWorkflow] = []
    last = -1
    for workflow in workflows:
        digest, version = definition_hash(workflow), _version(workflow)
        before = stored.get(workflow["id"])
        revision = 0 if before is None else before.version
        changed = before is None or before.deleted or definition_hash(orjson.loads(before.content)) != digest
        if changed:
            revision += 1
            last = await _publish(bus, workflow, digest, revision, who, why)
        found.append(AppliedWorkflow(id=workflow["id"], version=version, revision=revision, hash=digest, changed=changed))
    return await _told(bus, found, last, timeout)


async def delete(bus: Bus, workflow_id: str, *, who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> AppliedWorkflow:
    """Takes a definition and all its versions back: nothing starts it by its id any more. What runs goes on.

    Raises `NotFound` (`workflow.unknown`).
    """
    stored = await _records(bus)
    before = _in_force(stored, workflow_id)
    content, revision = orjson.loads(before.content), before.version + 1
    last = -1
    for record_id in [key for key in stored if key.startswith(workflow_id + VERSION_MARK) and not stored[key].deleted] + [workflow_id]:
        last = await _write(bus, record_id, content, revision, who, why, deleted=True)
    await _tell(bus, "workflow.deleted", workflow_id, revision, who, why)
    gone = AppliedWorkflow(
        id=workflow_id, version=_version(content), revision=revision, hash=definition_hash(content), changed=True
    )  # fmt: skip
    return (await _told(bus, [gone], last, timeout))[0]


async def list_workflows(bus: Bus) -> list[StoredWorkflow]:
    """The newest definition of each id, by id."""
    stored = await _records(bus)
    return [_stored(stored[key]) for key in sorted(stored) if "@" not in key and not stored[key].deleted]


async def show(bus: Bus, workflow_id: str) -> StoredWorkflow:
    """The newest definition with this id. Raises `NotFound` (`workflow.unknown`)."""
    return _stored(_in_force(await _records(bus), workflow_id))


async def pinned(bus: Bus, workflow_id: str, digest: str) -> Mapping[str, Any]:
    """The definition that executions with this hash run, whatever was published since. Raises `NotFound` (`workflow.unknown`)."""
    found = (await _records(bus)).get(f"{workflow_id}@{digest}")
    if found is None:
        raise NotFound("workflow.unknown", f"There is no workflow {workflow_id!r} with the hash {digest}.")
    return dict(orjson.loads(found.content))


def _in_force(stored: Mapping[str, ControlRecord], workflow_id: str) -> ControlRecord:
    found = stored.get(workflow_id) if "@" not in workflow_id else None
    if found is None or found.deleted:
        raise NotFound("workflow.unknown", f"There is no workflow {workflow_id!r}.")
    return found


def _checked(document: Json) -> dict[str, Any]:
    """The bare workflow of a document. Raises `InvalidInput` (`workflow.invalid`)."""
    workflow, path = unwrap(document)
    if not isinstance(workflow, dict) or not isinstance(workflow.get("id"), str):
        raise InvalidInput("workflow.invalid", "A workflow has an id.", pointer="".join(f"/{part}" for part in path) + "/id")
    if not 0 < len(workflow["id"]) <= ID_CHARACTERS_MAX or "@" in workflow["id"] or "/" in workflow["id"]:
        raise InvalidInput("workflow.invalid", f"An id has 1 to {ID_CHARACTERS_MAX} characters, no @ and no /.", pointer="/id")
    return workflow


def _version(workflow: Mapping[str, Any]) -> str:
    return str(workflow.get("version", ""))


def _stored(record: ControlRecord) -> StoredWorkflow:
    definition = orjson.loads(record.content)
    return StoredWorkflow(
        id=record.id, version=_version(definition), revision=record.version, hash=definition_hash(definition),
        definition=definition, who=record.who, why=record.why, time=iso(record.time),
    )  # fmt: skip


async def _records(bus: Bus) -> dict[str, ControlRecord]:
    """The newest record under each key."""
    found: dict[str, ControlRecord] = {}
    async for delivered in bus.read(CONTROL_WORKFLOWS, since="beginning", until_end=True):
        if isinstance(delivered.record, ControlRecord):
            found[delivered.record.id] = delivered.record
    return found


async def _publish(bus: Bus, workflow: Mapping[str, Any], digest: str, revision: int, who: str, why: str) -> int:
    workflow_id, version = workflow["id"], _version(workflow)
    await _write(bus, f"{workflow_id}@{digest}", workflow, revision, who, why)
    if version:
        await _write(bus, f"{workflow_id}{VERSION_MARK}{version}", workflow, revision, who, why)
    last = await _write(bus, workflow_id, workflow, revision, who, why)
    await _tell(bus, "workflow.applied", workflow_id, revision, who, why)
    return last


async def _write(bus: Bus, record_id: str, workflow: Mapping[str, Any], revision: int, who: str, why: str, *, deleted: bool = False) -> int:
    """Writes one record; its offset, or -1 where the broker does not say."""
    record = ControlRecord(
        id=record_id, type="workflow.deleted" if deleted else "workflow.applied", source=_SOURCE, subject=workflow["id"],
        correlation_id=workflow["id"], kind="workflow", version=revision, content=orjson.dumps(workflow).decode(),
        who=who, why=why, deleted=deleted,
    )  # fmt: skip
    return (await bus.send(CONTROL_WORKFLOWS, record_id, record)).offset


async def _tell(bus: Bus, type_: str, workflow_id: str, revision: int, who: str, why: str) -> None:
    data = {"id": workflow_id, "revision": revision, "who": who, "why": why}
    await bus.publish(SystemEvent(type=type_, source=_SOURCE, subject=workflow_id, correlation_id=workflow_id, data=data))


async def _told(bus: Bus, found: list[AppliedWorkflow], last: int, timeout: float) -> list[AppliedWorkflow]:
    """`found`, with the cores that have read the record at `last`."""
    if last < 0:
        return found
    cores, missing = await wait_reached(bus, CONTROL_WORKFLOWS, last + 1, timeout)
    return [
        AppliedWorkflow(
            id=each.id, version=each.version, revision=each.revision, hash=each.hash, changed=each.changed, cores=cores, missing=missing
        )
        for each in found
    ]  # fmt: skip
