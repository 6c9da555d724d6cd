"""What the records of a chunk start is noted, also what is refused: neither a loop nor a foreign header ends the worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streams import limits
from streams.codec.avro import Codec, SchemaIds
from streams.faust_app.start_stage import StartStage
from streams.matching.matchers import RecordView
from streams.matching.starts import Editions, StartIndex
from streams.records import SystemEvent
from streams.topics import COMMANDS, DEPTH_HEADER, SYSTEM_EVENTS


def stage_and_codec() -> tuple[StartStage, Codec]:
    codec = Codec(SchemaIds.local())
    editions = Editions()
    editions.publish({"id": "w", "name": "w", "steps": [], "triggers": [{"event": "ping"}]}, 0)
    unused: Any = None
    stage = StartStage(unused, codec, unused)
    stage.index = StartIndex(editions.all())
    return stage, codec


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ([], COMMANDS),
        ([(DEPTH_HEADER, b"3")], COMMANDS),
        ([(DEPTH_HEADER, str(limits.TRIGGER_DEPTH_MAX).encode())], SYSTEM_EVENTS),
        ([(DEPTH_HEADER, b"many")], SYSTEM_EVENTS),
        ([(DEPTH_HEADER, b"\xff")], SYSTEM_EVENTS),
        ([(DEPTH_HEADER, b"9" * 5000)], SYSTEM_EVENTS),
    ],
)
def test_a_start_or_a_refusal_is_noted(headers: Any, target: str) -> None:
    stage, codec = stage_and_codec()
    value = codec.encode(SystemEvent(type="ping", source="shop", subject="s", data={}))
    _, plain = codec.decode_raw(value)
    stage.take(SYSTEM_EVENTS, SimpleNamespace(value=value, timestamp=5, offset=0, headers=headers), RecordView(plain))
    assert [topic for topic, _, _ in stage._pending] == [target]
    assert (stage.started, stage.refused) == ((1, 0) if target == COMMANDS else (0, 1))
