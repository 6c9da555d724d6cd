"""What the modules' log says, beside what its owners know: `mplp modules checksum --from-log`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition

from services.modules.log_checksums import LogChecksums, Sum
from streams.bus import Bus
from streams.records import ModuleMessage, SystemEvent, now, to_micros
from streams.topics import MESSAGES


class ModulesLog:
    """The log as it is from now on: what owners that are asked after `begin` know is what it says at one of its places behind that."""

    def __init__(self, bus: Bus, folds: Mapping[int, LogChecksums]) -> None:
        self._bus = bus
        self._folds = folds

    @classmethod
    async def begin(cls, bus: Bus) -> ModulesLog:
        """Notes where the log ends. Raises `Unavailable` and `NotFound` as `Bus.read`."""
        topic, time_us = bus.kafka.names.physical(MESSAGES), to_micros(now())
        async with bus.kafka.consumer() as consumer:
            numbers = range(await bus.publisher.partitions(MESSAGES))
            ends = await consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
        return cls(
            bus, {tp.partition: LogChecksums(partition=tp.partition, time_us=time_us, watched_from=int(end)) for tp, end in ends.items()}
        )

    async def compare(self, known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Reads the log; of each partition and module what its owner knows (`known`: entries of the hub's `checksum`) and whether it is so.

        Raises `Defect` (`log.gap`) if the log itself cannot be right.
        """
        async for found in self._bus.read(MESSAGES, until_end=True):
            event = found.record
            if isinstance(event, ModuleMessage | SystemEvent):
                self._folds[found.partition].fold(event, found.topic, found.offset)
        owners = {(each["partition"], each["module"]): each for each in known}
        seen = {(partition, module): sums for partition, fold in self._folds.items() for module, sums in fold.seen().items()}
        rows = []
        for partition, module in sorted(owners.keys() | seen.keys()):
            owner, sums = owners.get((partition, module)), seen.get((partition, module), {(0, 0)})
            told: Sum = (0, 0) if owner is None else (owner["aggregates"], int(owner["checksum"], 16))
            rows.append({
                "partition": partition, "module": module, "aggregates": told[0], "checksum": told[1].to_bytes(32).hex(),
                "same": told in sums, "fromLog": sorted({count for count, _ in sums}),
            })  # fmt: skip
        return rows


__all__ = ["ModulesLog"]
