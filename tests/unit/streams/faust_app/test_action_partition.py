"""Actions of one partition in a world in memory: servers that are dead or back again, a broker that is away, owners that come and go."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from streams.correlation.actions import Intended, IntendedCall, IntendedEvent, Unrendered
from streams.errors import Unavailable
from streams.faust_app import action_lanes, action_partition
from streams.faust_app.action_lanes import Item, Lanes
from streams.faust_app.action_partition import ActionPartition
from streams.faust_app.action_plan import Call, Cause, Task, Write, plan
from streams.log.ports import Stored
from streams.records import CompositeEvent, Delivery, SystemEvent
from streams.topics import SYSTEM_EVENTS
from streams.webhooks import outcomes
from streams.webhooks.outcomes import Delivered, Failed, Outcome

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
DOWN = Failed(code="webhook.failed", message="HTTP 503", retryable=True)


class World:
    """`Ports` in memory. `log` has what was appended, by offset."""

    def __init__(self) -> None:
        self.attempts_max = 3
        self.retry_ms = 1
        self.log: list[tuple[Stored, list[Intended]]] = []
        self.written: list[Write] = []
        self.buried: list[tuple[str, str, int]] = []  # (key, code, attempts)
        self.calls: Counter[str] = Counter()  # key → attempts
        self.delivered: list[str] = []  # keys
        self.down: set[str] = set()  # origins
        self.kafka_away = False
        self.reads = 0
        self.reads_lost = 0  # readings that break off in the middle

    def append(self, *intended: Intended) -> Stored:
        offset = len(self.log)
        stored = Stored(topic="c", partition=0, offset=offset, timestamp_ms=offset, key=b"k", value=b"x" * 10, headers=())
        self.log.append((stored, list(intended)))
        return stored

    async def read(self, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        self.reads += 1
        for stored, intended in self.log[start:end]:
            await asyncio.sleep(0)
            if self.reads_lost and stored.offset % 3 == 2:
                self.reads_lost -= 1
                raise Unavailable("kafka.failed", "away")
            if intended:
                yield stored

    async def done_since(self, time_ms: int) -> Collection[str]:
        await asyncio.sleep(0)
        over = [write.record for write in self.written if isinstance(write.record, Delivery) and write.record.status != "retrying"]
        said_ms = {f"c{stored.offset}": stored.timestamp_ms for stored, _ in self.log}
        return {row.data["key"] for row in over if said_ms[row.event_id] >= time_ms}

    def items_of(self, stored: Stored) -> list[Item]:
        composite = CompositeEvent(
            id=f"c{stored.offset}", type="composite.r", rule_id="r", correlation_type="event_count", window_start=WHEN, window_end=WHEN
        )
        errands = plan(Cause(composite=composite, said_us=0), self.log[stored.offset][1])
        return [Item((stored.offset, index), errand, stored) for index, errand in enumerate(errands)]

    async def write(self, writes: Sequence[Write]) -> list[Failed | None]:
        await asyncio.sleep(0)
        if self.kafka_away:
            raise Unavailable("kafka.failed", "away")
        too_large = Failed(code="payload.too-large", message="too large", retryable=False)
        refused = [too_large if write.topic == SYSTEM_EVENTS and write.record.type == "too.large" else None for write in writes]
        self.written += [write for write, failed in zip(writes, refused, strict=True) if failed is None]
        return refused

    async def bury(self, raw: Stored, task: Task, failed: Failed, attempts: int) -> None:
        await asyncio.sleep(0)
        self.buried.append((task.key, failed.code, attempts))

    async def post(self, call: Call) -> tuple[Outcome, float]:
        await asyncio.sleep(0)
        self.calls[call.task.key] += 1
        if call.target.origin in self.down:
            return DOWN, 1.0
        self.delivered.append(call.task.key)
        return Delivered(), 1.0

    # --- what is seen of it ---

    def events(self, type: str = "done") -> list[str]:
        return [write.record.id for write in self.written if isinstance(write.record, SystemEvent) and write.record.type == type]

    def statuses(self, key: str) -> list[str]:
        return [write.record.status for write in self.written if isinstance(write.record, Delivery) and write.task.key == key]


def emit(key: str) -> IntendedEvent:
    return IntendedEvent(key=key, type="done", subject="s", data={})


def call(key: str, host: str = "a") -> IntendedCall:
    return IntendedCall(key=key, url=f"https://{host}/", headers={}, body={})


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


class Owner:
    """One owner after the other; `say` appends and hands over, as the correlate stage does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults: list[BaseException] = []
        self.partition = self._new()
        self.checkpoint: Any = None

    def _new(self) -> ActionPartition:
        return ActionPartition(self.world, 0, self.faults.append)

    async def begin(self) -> None:
        await self.partition.begin(self.checkpoint, position=0, end=len(self.world.log))

    def say(self, *intended: Intended) -> None:
        stored = self.world.append(*intended)
        self.partition.said([stored] if intended else [], stored.offset + 1)

    async def succeed(self, *, clean: bool = False) -> None:
        """Another owner takes over from the last checkpoint."""
        await self.partition.close()
        if clean:
            self.checkpoint = self.partition.dump()
        self.partition = self._new()
        await self.begin()

    def idle(self) -> bool:
        return bool(self.partition.dump() == {"position": len(self.world.log), "lanes": {}})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "DELAY_MS_MAX", 5)


@pytest.fixture
async def owner() -> AsyncIterator[Owner]:
    made = Owner(World())
    await made.begin()
    yield made
    await made.partition.close()
    assert made.faults == []


async def test_what_is_said_is_performed_and_each_attempt_is_told(owner: Owner) -> None:
    owner.say(emit("e0"), call("c0"))
    owner.say()
    owner.say(emit("e2"))
    await until(owner.idle)
    world = owner.world
    assert world.events() == ["e0", "e2"]
    assert world.delivered == ["c0"]
    assert {key: world.statuses(key) for key in ("e0", "c0", "e2")} == {key: ["delivered"] for key in ("e0", "c0", "e2")}
    assert world.reads == 0  # what the owner has said itself is not read again


async def test_a_webhook_that_fails_is_tried_again_and_then_given_up_and_reported(owner: Owner) -> None:
    world = owner.world
    world.down = {"https://a"}
    owner.say(call("c0"))
    await until(lambda: world.calls["c0"] >= 2)
    world.down = set()
    await until(owner.idle)
    assert world.statuses("c0")[-1] == "delivered"

    world.down = {"https://a"}
    owner.say(call("c1"))
    await until(owner.idle)
    assert world.statuses("c1") == ["retrying", "retrying", "dead"]
    assert world.buried == [("c1", "webhook.failed", 3)]
    (report,) = [write.record for write in world.written if write.record.type == "rule.action-failed"]
    assert (report.data["code"], report.data["attempts"]) == ("webhook.failed", 3)


async def test_what_cannot_be_done_is_given_up_at_once_and_stops_nothing(owner: Owner) -> None:
    broken = Unrendered(key="u", index=0, action="emit", code="action.unrendered", message="no value")
    owner.say(broken, emit("e"), IntendedEvent(key="big", type="too.large", subject="s", data={}))
    await until(owner.idle)
    world = owner.world
    assert owner.partition.figures() == {"r": {"performed": 1, "given_up": 2, "waiting": 0}}
    assert world.events() == ["e"]
    assert sorted(world.buried) == [("big", "payload.too-large", 1), ("u", "action.unrendered", 1)]
    assert world.statuses("u") == world.statuses("big") == ["dead"]
    assert len(world.events("rule.action-failed")) == 2


async def test_a_dead_server_stops_no_other_takes_bounded_memory_and_gets_everything_when_it_is_back(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action_lanes, "CALLS_MAX", 5)
    world = owner.world
    world.attempts_max = 1_000_000
    world.down = {"https://dead"}
    most = 0
    for number in range(300):
        owner.say(call(f"d{number}", "dead"), emit(f"e{number}"), call(f"l{number}", "lively"))
        await until(lambda number=number: f"l{number}" in world.delivered and f"e{number}" in world.events())
        most = max(most, len(lanes_of(owner).lanes["https://dead"].todo))
    assert most <= 5
    await until(lambda: owner.partition.figures()["r"]["performed"] == 600)  # the last call has come there before it is noted as performed
    assert owner.partition.figures() == {"r": {"performed": 600, "given_up": 0, "waiting": 5}}
    assert owner.partition.dump() == {"position": 300, "lanes": {"https://dead": [0, 0]}}
    assert len([key for key in world.calls if key.startswith("d")]) == 5
    world.down = set()
    await until(owner.idle)
    assert sorted(world.delivered) == sorted(f"{kind}{number}" for kind in "dl" for number in range(300))
    assert world.buried == []


def lanes_of(owner: Owner) -> Lanes:
    lanes = owner.partition._lanes
    assert lanes is not None
    return lanes


async def test_a_burst_that_does_not_fit_is_read_from_the_log_and_nothing_is_done_twice(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action_lanes, "CALLS_MAX", 7)
    monkeypatch.setattr(action_lanes, "WRITES_MAX", 7)
    for number in range(200):
        owner.say(emit(f"e{number}"), call(f"c{number}"), call(f"b{number}", "b"), call(f"cc{number}"))
        if number % 50 == 0:
            await asyncio.sleep(0.002)
    await until(owner.idle)
    world = owner.world
    assert Counter(world.events()) == Counter(f"e{number}" for number in range(200))
    assert Counter(world.delivered) == Counter(f"{kind}{number}" for kind in ("c", "b", "cc") for number in range(200))
    assert world.events() == [f"e{number}" for number in range(200)]  # Kafka's lane keeps the order
    assert world.reads > 0


async def test_with_more_dead_servers_than_there_are_lanes_nothing_is_lost(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_lanes, "LANES_MAX", 4)
    world = owner.world
    world.attempts_max = 1_000_000
    hosts = [f"h{number}" for number in range(10)]
    world.down = {f"https://{host}" for host in hosts}
    for host in hosts:
        owner.say(call(host, host), emit(f"e-{host}"))
    await until(lambda: len(world.calls) == 3)  # Kafka's lane is the fourth
    assert len(lanes_of(owner).lanes) <= 4
    world.down = set()
    await until(owner.idle)
    assert sorted(world.delivered) == sorted(hosts)
    assert sorted(world.events()) == sorted(f"e-{host}" for host in hosts)


async def test_a_broker_that_is_away_is_waited_for(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_partition, "_AGAIN_S", 0.001)
    world = owner.world
    world.kafka_away = True
    owner.say(emit("e"), call("c"))
    await until(lambda: world.delivered)
    assert not owner.idle()
    world.kafka_away = False
    await until(owner.idle)
    assert world.events() == ["e"]
    assert world.statuses("c") == ["delivered"]
    assert world.delivered == ["c"]


async def test_a_successor_does_what_is_not_known_as_done(owner: Owner) -> None:
    world = owner.world
    world.attempts_max = 1_000_000
    world.down = {"https://dead"}
    owner.say(call("d", "dead"), emit("e0"))
    owner.say(emit("e1"))
    # Written is not yet told and finished: a checkpoint before that has the two as left to do.
    await until(lambda: owner.partition.dump() == {"position": 2, "lanes": {"https://dead": [0, 0]}})
    await owner.succeed(clean=True)
    assert owner.partition.dump() == {"position": 2, "lanes": {"https://dead": [0, 0]}}
    world.down = set()
    await until(owner.idle)
    assert world.delivered == ["d"]
    assert world.events() == ["e0", "e1"]  # those were done, and the checkpoint knows it
    world.append(emit("e2"))  # an owner has appended it, and died before it was performed
    await owner.succeed()
    await until(owner.idle)
    assert world.events()[-1] == "e2"


async def test_what_deliveries_tell_as_done_is_not_done_again_though_no_checkpoint_knows_it(owner: Owner) -> None:
    world = owner.world
    broken = Unrendered(key="u", index=0, action="emit", code="action.unrendered", message="no value")
    owner.say(emit("e0"), call("c0"), broken)
    owner.say(call("c1"))
    await until(owner.idle)
    world.append(emit("e2"), call("c2"))  # appended, and nothing of it was done
    assert owner.checkpoint is None
    await owner.succeed()
    await until(owner.idle)
    assert world.events() == ["e0", "e2"]
    assert world.delivered == ["c0", "c1", "c2"]
    assert [key for key, _, _ in world.buried] == ["u"]


async def test_a_reading_that_breaks_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_partition, "_AGAIN_S", 0.001)
    monkeypatch.setattr(action_lanes, "CALLS_MAX", 4)
    world = World()
    for number in range(20):
        world.append(emit(f"e{number}"), call(f"c{number}"))
    world.reads_lost = 6
    owner = Owner(world)
    await owner.begin()
    await until(owner.idle)
    await owner.partition.close()
    assert owner.faults == []
    assert world.reads_lost == 0
    assert world.events() == [f"e{number}" for number in range(20)]
    assert Counter(world.delivered) == Counter(f"c{number}" for number in range(20))


async def test_the_same_owner_goes_on_where_it_was_when_it_claims_the_partition_anew(owner: Owner) -> None:
    owner.say(emit("e0"))
    await until(owner.idle)
    owner.world.append(emit("e1"))  # an append of unknown outcome that did reach the log
    await owner.begin()
    await until(owner.idle)
    assert owner.world.events() == ["e0", "e1"]


@pytest.mark.parametrize("seed", [*range(10), 63, 141])  # the last two found that a partition could wait for ever
async def test_whoever_dies_whenever_everything_is_done_at_least_once_under_its_key(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chaos = random.Random(seed)
    monkeypatch.setattr(action_lanes, "CALLS_MAX", chaos.choice([1, 2, 5, 100]))
    monkeypatch.setattr(action_lanes, "WRITES_MAX", chaos.choice([1, 3, 100]))
    monkeypatch.setattr(action_lanes, "LANES_MAX", chaos.choice([2, 3, 100]))
    world = World()
    world.attempts_max = 1_000_000
    owner = Owner(world)
    await owner.begin()
    expected: list[str] = []
    for number in range(150):
        intended: list[Intended] = []
        for index in range(chaos.randrange(4)):
            key = f"k{number}.{index}"
            expected.append(key)
            intended.append(emit(key) if chaos.random() < 0.4 else call(key, chaos.choice("abc")))
        owner.say(*intended)
        match chaos.randrange(12):
            case 0:
                owner.checkpoint = owner.partition.dump()
            case 1:
                await owner.succeed(clean=chaos.random() < 0.5)
            case 2:
                world.down = {f"https://{host}" for host in "abc" if chaos.random() < 0.5}
            case 3:
                await asyncio.sleep(chaos.choice([0, 0, 0.001, 0.003]))
            case _:
                pass
    world.down = set()
    await until(owner.idle)
    await owner.partition.close()
    assert owner.faults == []
    assert set(world.events()) | set(world.delivered) == set(expected)


async def test_a_fault_of_ours_ends_the_process_instead_of_being_lost(owner: Owner) -> None:
    async def broken(_: Call) -> tuple[Outcome, float]:
        raise RuntimeError("a bug")

    owner.world.post = broken  # type: ignore[method-assign]
    owner.say(call("c"))
    await until(lambda: owner.faults)
    assert str(owner.faults.pop()) == "a bug"
