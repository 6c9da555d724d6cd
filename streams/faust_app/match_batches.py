"""The matches of a chunk, gathered by partition of `mplp.internal.matches` into as few records as fit (`streams.correlation.rows`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from streams.codec.avro import Codec
from streams.correlation.index import Hit
from streams.correlation.rows import RowsWriter
from streams.faust_app.batches import Raw
from streams.matching.matchers import RecordView
from streams.records import derived_id


class MatchBatches:
    """Matches of one source partition, by their target."""

    def __init__(self, codec: Codec, topic: str, partition: int, *, worker: str) -> None:
        self._codec = codec
        self.topic = topic
        self.partition = partition
        self._worker = worker
        self._open: dict[int, RowsWriter] = {}
        self._full: dict[int, list[RowsWriter]] = {}

    def add(
        self, target: int, hit: Hit, view: RecordView, offset: int, ordinal: int, depth: int, more: Mapping[str, Any] | None = None
    ) -> bool:
        """One more match for a target, of a record of this depth; False: it is too large to be carried. `more`: see `RowsWriter.add`."""
        writer = self._open.get(target)
        if writer is None or writer.full:
            if writer is not None:
                self._full.setdefault(target, []).append(writer)
            writer = self._open[target] = RowsWriter()
        return writer.add(hit, view, offset, ordinal, depth, more)

    def raws(self) -> dict[int, list[Raw]]:
        """The records by target, in the order of their sources."""
        now_us = time.time_ns() // 1000
        found: dict[int, list[Raw]] = {}
        for target, last in self._open.items():
            raws = [self._raw(target, writer, now_us) for writer in (*self._full.get(target, ()), last) if len(writer)]
            if raws:
                found[target] = raws
        return found

    def _raw(self, target: int, writer: RowsWriter, now_us: int) -> Raw:
        place = f"{self.topic}/{self.partition}"
        value = self._codec.encode_raw(
            "MatchBatch",
            {
                "id": derived_id("matches", place, target, *writer.first()), "type": "matches.written", "source": f"mplp/{self._worker}",
                "subject": place, "time": now_us, "data": writer.text(), "topic": self.topic, "partition": self.partition,
                "count": len(writer),
            },
        )  # fmt: skip
        return place.encode(), value, []
