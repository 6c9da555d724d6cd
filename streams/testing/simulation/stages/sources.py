"""Who writes what the stages read: events and transitions, some of them void, broken or dated ahead, and rules that change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from streams.codec.avro import Codec, headers_of
from streams.limits import AHEAD_MS_MAX
from streams.log.fenced import fence_key
from streams.log.ports import Outgoing
from streams.log.rule import FENCED
from streams.records import ControlRecord, Fence, Json, Record, SystemEvent, WorkflowTransition, from_micros
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.stages.scenario import TYPES, StageScenario
from streams.topics import CONTROL_RULES, SYSTEM_EVENTS, TRANSITIONS, WORKFLOW_SNAPSHOTS

#: One record in so many is a transition.
_TRANSITIONS_SHARE = 0.2
#: Moves clocks and matches nothing.
TICK = "sim.tick"


class Sources:
    """Writes at moments drawn beforehand."""

    def __init__(self, broker: SimulatedBroker, codec: Codec, scenario: StageScenario, start_us: int) -> None:
        self._broker, self._codec, self._scenario, self._start_us = broker, codec, scenario, start_us
        self._chance = broker.scheduler.random.random
        self._epoch = 1
        self._count = 0
        self._times: set[int] = set()
        self._versions: dict[str, int] = {}
        self.latest_us = start_us  #: greatest event time written, of what is used

    def begin(self) -> None:
        """The rules of the beginning, and a plan for the rest."""
        scenario, scheduler = self._scenario, self._broker.scheduler
        self._fence()
        for document in scenario.rules:
            self.change_rule(document["id"], document)
        rules = self._broker.partition(CONTROL_RULES, 0)
        rules.visible = rules.end  # they are older than any record
        for _ in range(scenario.records):
            scheduler.at(int(self._chance() * scenario.storm_us), self._write)
        for when, rule_id, document in scenario.changes:
            scheduler.at(int(when * scenario.storm_us), partial(self.change_rule, rule_id, document))

    def change_rule(self, rule_id: str, document: Json) -> None:
        """A new version of a rule, or its end."""
        version = self._versions[rule_id] = self._versions.get(rule_id, 0) + 1
        content = "{}" if document is None else orjson.dumps(document).decode()
        record = ControlRecord(
            id=rule_id, type="rule.changed", time=self._now(), kind="rule", version=version, content=content, deleted=document is None
        )
        self._put(CONTROL_RULES, 0, rule_id, record)

    def close(self, time_us: int) -> None:
        """A last record of each source partition, dated so late that everything before it can be decided."""
        for partition in range(self._scenario.sources):
            self._put(SYSTEM_EVENTS, partition, "tick", self._event(TICK, time_us))
        self._put(TRANSITIONS, 0, "tick", self._transition(TICK, time_us, self._epoch))

    # --- one record -------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        chance, scenario = self._chance, self._scenario
        type_ = TYPES[int(chance() * len(TYPES))]
        time_us = self._time()
        if chance() < _TRANSITIONS_SHARE:
            if chance() < 0.2:
                self._fence()
            lost = self._epoch > 1 and chance() < scenario.void
            self._put(TRANSITIONS, 0, "x", self._transition(type_, time_us, self._epoch - 1 if lost else self._epoch))
            return
        partition = int(chance() * scenario.sources)
        if chance() < scenario.broken:
            self._broker.store(SYSTEM_EVENTS, partition, [Outgoing(key=b"?", value=b"garbage", headers=[], timestamp_ms=0)])
            return
        if chance() < scenario.ahead:
            time_us = self._broker.scheduler.now_us + AHEAD_MS_MAX * 1000 + int(1 + chance() * 1e12)
        self._put(SYSTEM_EVENTS, partition, "x", self._event(type_, time_us))

    def _time(self) -> int:
        """Event time goes by faster than the wall clock, and ends where that one is; no two records have the same."""
        scenario = self._scenario
        gone_us = self._broker.scheduler.now_us - self._start_us
        time_us = self._start_us + int(scenario.speed * gone_us - (scenario.speed - 1) * scenario.storm_us)
        time_us -= int(self._chance() * scenario.disorder_us)
        while time_us in self._times:
            time_us += 1
        self._times.add(time_us)
        self.latest_us = max(self.latest_us, time_us)
        return time_us

    def _payload(self) -> Mapping[str, Any]:
        chance = self._chance
        value = (1, 2, 3, 0.5, None, "x")[int(chance() * 6)]
        return {"g": f"g{int(chance() * self._scenario.groups)}", "v": value}

    def _id(self) -> str:
        self._count += 1
        return f"record-{self._count:05d}"

    def _event(self, type_: str, time_us: int) -> SystemEvent:
        return SystemEvent(id=self._id(), type=type_, source="sim", subject="x", time=from_micros(time_us), data=self._payload())

    def _transition(self, type_: str, time_us: int, epoch: int) -> WorkflowTransition:
        return WorkflowTransition(
            id=self._id(), type=type_, source="sim", subject="x", time=from_micros(time_us), data=self._payload(), execution_id="x",
            workflow_id="w", aggregate_id="x", sequence=self._count, epoch=epoch,
        )  # fmt: skip

    def _fence(self) -> None:
        """A new owner of the transitions."""
        self._epoch += 1
        end = self._broker.partition(TRANSITIONS, 0).end
        fence = Fence(
            id=f"fence-{self._epoch}", type=FENCED, time=self._now(), log=TRANSITIONS, partition=0, epoch=self._epoch, owner="sim"
        )
        self._put(TRANSITIONS, 0, "fence/0", fence)
        self._put(WORKFLOW_SNAPSHOTS, 0, fence_key(TRANSITIONS, 0, self._epoch), replace(fence, id=f"index-{self._epoch}", offset=end))

    def _now(self) -> Any:
        return from_micros(self._broker.scheduler.now_us)

    def _put(self, topic: str, partition: int, key: str, record: Record) -> None:
        outgoing = Outgoing(
            key=key.encode(), value=self._codec.encode(record), headers=headers_of(record),
            timestamp_ms=self._broker.scheduler.now_us // 1000,
        )  # fmt: skip
        self._broker.store(topic, partition, [outgoing])


__all__ = ["TICK", "Sources"]
