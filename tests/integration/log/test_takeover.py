"""Takeovers on a real broker: from the last checkpoint, exactly as from the whole log; lies in the topic of snapshots are not believed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

import orjson
import pytest

from streams import topics
from streams.codec.avro import Codec, headers_of
from streams.kafka import Kafka
from streams.log.archive import kept_snapshot
from streams.log.fold import LogFold
from streams.log.freeze import StateFormat
from streams.log.host import Host
from streams.log.kafka_log import KafkaLog
from streams.log.kafka_snapshots import KafkaSnapshots, SnapshotClients
from streams.log.lanes import Lane
from streams.log.rule import ReadersRule, Verdict
from streams.log.snapshot import CHECKPOINTED
from streams.records import ModuleMessage, Position, Record
from streams.settings import Settings
from streams.testing.toys import FlowMachine, FlowState, command, start


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One partition, a checkpoint after every 20 records or half a second."""
    return settings.model_copy(update={"partitions": 1, "checkpoint_records": 20, "checkpoint_interval_ms": 500})


class Core:
    """A host as a task; its module runs elsewhere, that is: nobody answers unless the test does."""

    def __init__(self, kafka: Kafka, codec: Codec, machine: FlowMachine | None = None) -> None:
        group = f"{kafka.settings.topic_prefix}-core"
        self.host = Host(kafka, codec, [machine or FlowMachine()], name="core-1", group=group)
        self.task = asyncio.create_task(self.host.run())

    @property
    def lane(self) -> Lane:
        return self.host._runners[0]._owned.lanes["workflow"]

    async def ready(self) -> Core:
        async with asyncio.timeout(180):
            await self.host.wait_ready()
        return self

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds; it does not where it looks into what a takeover has not yet rebuilt."""
    async with asyncio.timeout(180):
        while True:
            with contextlib.suppress(KeyError):
                if condition():
                    return
            await asyncio.sleep(0.05)


async def put(kafka: Kafka, codec: Codec, topic: str, *records: tuple[str, Record]) -> None:
    async with kafka.producer() as producer:
        for key, record in records:
            await producer.send_and_wait(
                kafka.names.physical(topic), key=key.encode(), value=codec.encode(record), headers=headers_of(record)
            )


def answer(flow: str, step: int) -> tuple[str, Record]:
    return flow, ModuleMessage(
        type="x", kind="response", source_module="echo", operation="echo", execution_id=flow, attempt=step, status="success"
    )  # fmt: skip


async def whole(kafka: Kafka, codec: Codec) -> tuple[LogFold, Counter[str]]:
    """The fold of the whole log as a plain loop, and how many events of each type it has."""
    log = KafkaLog(kafka, topics.TRANSITIONS, 0)
    fold, rule, types = LogFold(FlowMachine(), log=log.topic, partition=0, partitions=1), ReadersRule(), Counter[str]()
    async for stored in log.read(0, await log.end()):
        verdict = rule.judge_headers(stored.headers)
        record = codec.decode(stored.value)
        if verdict is Verdict.VALID:
            types[record.type] += 1
            fold.replay(record, stored.offset)  # type: ignore[arg-type]
        elif verdict is Verdict.POSITION:
            assert isinstance(record, Position)
            fold.replay_position(record)
    return fold, types


async def worked(kafka: Kafka, codec: Codec) -> Core:
    """A core that has 30 flows alive, 10 of them one step further, and 5 that ended; all of it in a checkpoint."""
    core = await Core(kafka, codec).ready()
    await put(kafka, codec, topics.COMMANDS, *((f"flow-{n}", start(f"flow-{n}", 2)) for n in range(35)))
    await put(kafka, codec, topics.RESPONSES, *(answer(f"flow-{n}", 1) for n in range(15)))
    await put(kafka, codec, topics.RESPONSES, *(answer(f"flow-{n}", 2) for n in range(5)))
    await until(lambda: len(core.lane.fold.view.aggregates) == 30 and core.lane.checkpoint_offset == core.lane.fold.next_offset)
    return core


async def test_a_takeover_from_a_checkpoint_is_exactly_one_from_the_whole_log(kafka: Kafka, codec: Codec) -> None:
    core = await worked(kafka, codec)
    await put(kafka, codec, topics.RESPONSES, *(answer(f"flow-{n}", 1) for n in range(15, 18)))  # may lie behind the checkpoint
    await core.kill()
    again = await Core(kafka, codec).ready()
    assert len(again.lane.fold.view.parked) == 5, "it began with the checkpoint"
    await until(lambda: again.lane.fold.positions[kafka.names.physical(topics.RESPONSES)] == 22)
    plain, types = await whole(kafka, codec)
    view = again.lane.fold.view
    assert view.aggregates == {name: state for name, state in plain.view.aggregates.items() if not state.ended}
    assert view.sequences == {name: plain.view.sequences[name] for name in view.aggregates}
    assert again.lane.fold.next_due() == plain.next_due()
    assert {send.record.id for send in again.lane.fold.outstanding()} == {send.record.id for send in plain.outstanding()}
    assert {topic: at for topic, at in again.lane.fold.positions.items() if at >= 0} == plain.positions
    # What ended is not in memory, yet it takes commands as if it were.
    await put(kafka, codec, topics.COMMANDS, ("flow-0", start("flow-0", 2)), ("flow-1", command("flow-1", "retry")))
    await until(lambda: "flow-1" in view.aggregates)
    plain, types = await whole(kafka, codec)
    assert (types["execution.started"], types["execution.retried"]) == (35, 1)
    await again.kill()


async def test_a_zombies_checkpoint_and_another_format_fall_back_to_the_log(kafka: Kafka, codec: Codec) -> None:
    core = await worked(kafka, codec)
    await core.kill()
    again = await Core(kafka, codec).ready()
    await put(kafka, codec, topics.COMMANDS, ("more", start("more")))
    await until(lambda: "more" in again.lane.fold.view.aggregates and again.lane.epoch_before(10**9) == 2)
    await until(lambda: again.lane.checkpoint_offset == again.lane.fold.next_offset)
    end = again.lane.fold.next_offset
    await again.kill()
    clients = SnapshotClients(kafka)
    name = kafka.names.physical(topics.TRANSITIONS)
    snapshots = KafkaSnapshots(clients, kafka.names.physical(topics.WORKFLOW_SNAPSHOTS), 0)
    empty = {"format": 1, "version": FlowMachine.states.version, "time_us": 0, "positions": {}, "live": 0, "gone": [], "epochs": [], "parked": [], "facts": []}  # fmt: skip # noqa: E501
    lie = kept_snapshot(
        codec, "1/checkpoint/0", CHECKPOINTED, "checkpoint/0",
        log=name, partition=0, offset=end, epoch=1, state=orjson.dumps(empty), time_us=0,
    )  # fmt: skip
    await snapshots.write([lie])
    await clients.close()

    class Later(FlowMachine):
        states = StateFormat(FlowState, meaning=2)

    quiet = Kafka(kafka.settings.model_copy(update={"checkpoint_records": 10**9, "checkpoint_interval_ms": 10**8}))
    for machine, begins in ((FlowMachine(), True), (Later(), False)):
        third = await Core(quiet, codec, machine).ready()
        assert (third.lane.checkpoint_offset > 0) is begins
        alive = {name for name, state in third.lane.fold.view.aggregates.items() if not state.ended}
        assert alive == {*(f"flow-{n}" for n in range(5, 35)), "more"}
        await third.kill()
