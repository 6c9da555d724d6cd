"""The workers as their heartbeats show them: who lives, what they have counted, how far they are behind."""

from __future__ import annotations

from datetime import timedelta

from aiokafka import TopicPartition

from streams.bus.bus import Bus
from streams.bus.reached import LIVE_S
from streams.correlation.rule_figures import FRESH_S, Reported
from streams.correlation.tallies import Tally
from streams.records import Heartbeat, now
from streams.topics import CONTROL_RULES, WORKERS


async def living(bus: Bus) -> tuple[list[Heartbeat], dict[str, Tally]]:
    """The last heartbeats of the workers that live, by name, and the figures of rules that they have told."""
    reported, beats = Reported(), dict[str, Heartbeat]()
    async for delivered in bus.read(WORKERS, since=now() - timedelta(seconds=FRESH_S), until_end=True):
        beat = delivered.record
        if isinstance(beat, Heartbeat):
            reported.take(beat)
            beats[beat.process] = beat
    since = now() - timedelta(seconds=LIVE_S)
    # One that was asked to end tells no positions in its last word.
    alive = [beats[name] for name in sorted(beats) if beats[name].time > since and CONTROL_RULES in beats[name].control_offsets]
    return alive, reported.tallies(now().timestamp())


async def behind(bus: Bus) -> int:
    """Records that the workers have not acknowledged, over all topics that they read."""
    group = f"{bus.kafka.settings.topic_prefix}-worker"
    async with bus.kafka.admin() as admin, bus.kafka.consumer() as consumer:
        offsets = await admin.list_consumer_group_offsets(group)
        committed = {partition: meta.offset for partition, meta in offsets.items() if meta.offset >= 0}
        ends: dict[TopicPartition, int] = await consumer.end_offsets(list(committed)) if committed else {}
    return sum(max(0, ends[partition] - offset) for partition, offset in committed.items())
