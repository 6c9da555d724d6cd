"""The catalogue of topics: key, partitions, retention, cleanup and records of each; `mplp topics apply` creates and verifies them.

Names in code, rules and docs are *logical* (`mplp.system.events`). `TopicNames` maps them to names on the broker, where the
first part is the configured prefix. Topics of users keep their own names.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from streams import limits
from streams.records import (
    Block,
    CompositeEvent,
    ControlRecord,
    Delivery,
    Fence,
    Heartbeat,
    Inserted,
    Match,
    MatchBatch,
    ModuleMessage,
    Position,
    Record,
    RuleChange,
    Snapshot,
    SystemEvent,
    Watermark,
    WorkflowCommand,
    WorkflowTransition,
)

DAY_MS = 24 * 3600 * 1000
FOREVER = -1

COMMANDS = "mplp.workflow.commands"
TRANSITIONS = "mplp.workflow.transitions"
WORKFLOW_SNAPSHOTS = "mplp.workflow.snapshots"
MESSAGES = "mplp.module.messages"
MODULE_SNAPSHOTS = "mplp.module.snapshots"
REQUESTS = "mplp.module.requests"
RESPONSES = "mplp.module.responses"
SYSTEM_EVENTS = "mplp.system.events"
COMPOSITES = "mplp.composite.events"
DELIVERIES = "mplp.deliveries"
MATCHES = "mplp.internal.matches"
BLOCKS = "mplp.internal.blocks"
INTERNAL_SNAPSHOTS = "mplp.internal.snapshots"
PARKED = "mplp.internal.parked"
ROUTE_STATES = "mplp.internal.routes"
WORKERS = "mplp.internal.workers"
CONTROL_RULES = "mplp.control.rules"
CONTROL_ROUTES = "mplp.control.routes"
CONTROL_WORKFLOWS = "mplp.control.workflows"
ERASURES = "mplp.control.erasures"
#: Where schemas lie unless the settings say another topic.
SCHEMAS = "_schemas"

#: A name that Kafka takes for a topic.
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
RETRY_SUFFIX = ".retry"
DEAD_LETTER_SUFFIX = ".dlq"

#: Header that carries the epoch of a log event.
EPOCH_HEADER = "mplp_epoch"
#: Header of an event whose sender called it something else than a UUID: what he called it (`streams.bus.validate.event_id`).
GIVEN_ID_HEADER = "mplp_given_id"
#: Header of a composite that rules read: what they need besides (`streams.correlation.composites`).
CHAIN_HEADER = "mplp_chain"
#: Header of a record that was forwarded to the partition of its home once.
FORWARDED_HEADER = "mplp_forwarded"
#: Header of what came about by itself: how many triggers and actions of rules led to it (`streams.causation`).
DEPTH_HEADER = "mplp_depth"
#: Header of what a route has delivered to a topic: the route, and topic/partition/offset of what it was made from.
ROUTED_HEADER = "mplp_routed"
#: Header of a composite whose rule has actions: what is to be done, as JSON (`streams.correlation.intentions`).
ACTIONS_HEADER = "mplp_actions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic of the catalogue."""

    name: str  #: logical name
    key: str  #: what the key is, in words
    records: tuple[type[Record], ...]  #: what may lie in it; empty: original bytes
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = FOREVER  #: of cleanup delete
    single_partition: bool = False  #: control topics: the offset is the version order
    log_append_time: bool = False  #: inbox topics
    message_bytes_max: int = limits.TOPIC_MESSAGE_BYTES_MAX
    sunk: bool = False  #: whether the history keeps it
    log: bool = False  #: whether it is a log in the sense of the kernel (fences count)

    def config(self) -> dict[str, str]:
        """The topic's configuration on the broker."""
        config = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.message_bytes_max),
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
        }
        if self.cleanup == "delete":
            config["retention.ms"] = str(self.retention_ms)
        if self.snapshots:
            # The active segment is never compacted: small and short-lived segments keep what a takeover reads near to what is live.
            config |= {
                "segment.bytes": str(limits.SNAPSHOT_SEGMENT_BYTES),
                "segment.ms": str(limits.SNAPSHOT_SEGMENT_MS),
                "min.cleanable.dirty.ratio": "0.3",
                "max.compaction.lag.ms": str(limits.SNAPSHOT_COMPACTION_LAG_MS),
                "delete.retention.ms": str(limits.SNAPSHOT_DELETION_MS),
            }
        return config

    @property
    def snapshots(self) -> bool:
        """Whether it is a compacted topic of snapshots."""
        return Snapshot in self.records and self.cleanup == "compact"


def letters_topic(name: str, *, sunk: bool = False) -> Topic:
    """Any topic's dead letters, or what is put back of them: a letter is what lay in the topic, and headers about what went wrong."""
    return Topic(
        name=name, key="original key", records=(), retention_ms=30 * DAY_MS, message_bytes_max=limits.LETTER_MESSAGE_BYTES_MAX, sunk=sunk
    )


CATALOGUE: tuple[Topic, ...] = (
    Topic(name=COMMANDS, key="execution id (home)", records=(WorkflowCommand,), retention_ms=7 * DAY_MS, log_append_time=True, sunk=True),
    Topic(
        name=TRANSITIONS,
        key="execution id",
        records=(WorkflowTransition, Fence, Position),
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
        sunk=True,
        log=True,
    ),
    Topic(
        name=WORKFLOW_SNAPSHOTS,
        key="epoch/execution id",
        records=(Snapshot, Fence),
        cleanup="compact",
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
    ),
    Topic(
        name=MESSAGES,
        key="home",
        records=(ModuleMessage, SystemEvent, Fence, Position),
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
        sunk=True,
        log=True,
    ),
    Topic(
        name=MODULE_SNAPSHOTS,
        key="epoch/aggregate id",
        records=(Snapshot, Fence),
        cleanup="compact",
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
    ),
    Topic(name=REQUESTS, key="home of the aggregate", records=(ModuleMessage,), retention_ms=7 * DAY_MS, log_append_time=True, sunk=True),
    Topic(name=RESPONSES, key="home of the caller", records=(ModuleMessage,), retention_ms=7 * DAY_MS, log_append_time=True, sunk=True),
    Topic(name=SYSTEM_EVENTS, key="subject", records=(SystemEvent,), retention_ms=30 * DAY_MS, log_append_time=True, sunk=True),
    Topic(
        name=COMPOSITES,
        key="rule + group key",
        records=(CompositeEvent, Fence, Position),
        retention_ms=30 * DAY_MS,
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
        sunk=True,
        log=True,
    ),
    Topic(name=DELIVERIES, key="event id", records=(Delivery,), retention_ms=7 * DAY_MS, sunk=True),
    Topic(
        name=MATCHES,
        key="rule + group key",
        records=(MatchBatch, Watermark, RuleChange, Match),
        retention_ms=7 * DAY_MS,
        log_append_time=True,
    ),
    Topic(name=BLOCKS, key="topic", records=(Block, Inserted, Fence, Position), retention_ms=7 * DAY_MS, log=True),
    Topic(
        name=INTERNAL_SNAPSHOTS,
        key="epoch/aggregate id",
        records=(Snapshot, Fence),
        cleanup="compact",
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
    ),
    Topic(
        name=PARKED,
        key="log/aggregate id",
        records=(Snapshot,),
        retention_ms=limits.DEDUPLICATION_WINDOW_MS + DAY_MS,
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
    ),
    Topic(
        name=ROUTE_STATES,
        key="topic/partition/route",
        records=(Snapshot,),
        cleanup="compact",
        message_bytes_max=limits.LOG_MESSAGE_BYTES_MAX,
    ),
    Topic(name=WORKERS, key="process", records=(Heartbeat,), cleanup="compact"),
    Topic(name=CONTROL_RULES, key="id, id@version", records=(ControlRecord,), cleanup="compact", single_partition=True),
    # LogAppendTime as of events: which definition an event belongs to is decided by one clock.
    Topic(
        name=CONTROL_ROUTES,
        key="id, id@version",
        records=(ControlRecord,),
        cleanup="compact",
        single_partition=True,
        log_append_time=True,
    ),
    Topic(
        name=CONTROL_WORKFLOWS,
        key="id, id@hash",
        records=(ControlRecord,),
        cleanup="compact",
        single_partition=True,
        log_append_time=True,
    ),
    # Which payloads the history has given up: each record has a key of its own, so compaction keeps all of them.
    Topic(name=ERASURES, key="erasure/part", records=(SystemEvent,), cleanup="compact", single_partition=True),
    letters_topic(SYSTEM_EVENTS + RETRY_SUFFIX),
    letters_topic(SYSTEM_EVENTS + DEAD_LETTER_SUFFIX, sunk=True),
)

BY_NAME = {topic.name: topic for topic in CATALOGUE}


def module_requests(module: str) -> str:
    """Logical name of the inbox of a module that runs outside the core."""
    return f"{REQUESTS}.{module}"


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Maps logical names to names on the broker and back: the first part `mplp` becomes the prefix."""

    prefix: str = "mplp"

    def physical(self, logical: str) -> str:
        """Name on the broker of a logical name."""
        return self.prefix + logical[4:] if logical.startswith("mplp.") else logical

    def logical(self, physical: str) -> str:
        """Logical name of a name on the broker."""
        return "mplp" + physical[len(self.prefix) :] if physical.startswith(self.prefix + ".") else physical

    def is_of_another(self, physical: str) -> bool:
        """Whether it belongs to another installation on the same broker: a name of the catalogue with another prefix."""
        if physical.startswith(self.prefix + "."):
            return False
        _, _, rest = physical.partition(".")
        name = f"mplp.{rest}".removesuffix(DEAD_LETTER_SUFFIX).removesuffix(RETRY_SUFFIX)
        return name in BY_NAME or rest.startswith("module.requests.")

    def own(self, physical: Iterable[str]) -> set[str]:
        """Those of a broker's topics (all of them) that do not belong to another installation there.

        Its prefix is known by its topic of system events; whatever begins with it is its own, topics of its users included.
        """
        known = set(physical)
        ending = SYSTEM_EVENTS.removeprefix("mplp")
        others = tuple(f"{prefix}." for name in known if name.endswith(ending) and (prefix := name.removesuffix(ending)) != self.prefix)
        return {name for name in known if name.startswith(f"{self.prefix}.") or not (name.startswith(others) or self.is_of_another(name))}


def partition_of(key: str | bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner (murmur2) gives to `key`."""
    return _hash(key.encode() if isinstance(key, str) else key) % partitions


@lru_cache(maxsize=65_536)
def _hash(raw: bytes) -> int:
    # A home is asked for with every record of its story.
    return murmur2(raw) & 0x7FFFFFFF


def murmur2(raw: bytes) -> int:
    """The hash of Kafka's default partitioner, 32 bits: a third of what aiokafka's own takes, since words are read at once."""
    length = len(raw)
    found = 0x9747B28C ^ length
    for word in struct.unpack_from(f"<{length >> 2}I", raw):
        word = word * 0x5BD1E995 & 0xFFFFFFFF
        found = (found * 0x5BD1E995 ^ (word ^ word >> 24) * 0x5BD1E995) & 0xFFFFFFFF
    if length & 3:
        found = (found ^ int.from_bytes(raw[length & ~3 :], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    found = (found ^ found >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return found ^ found >> 15


def home_of(aggregate_id: str) -> str:
    """The home (key, hence partition) of an aggregate: its id up to the first `/`."""
    return aggregate_id.partition("/")[0]
