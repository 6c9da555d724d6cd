"""Three workers, twelve partitions, planted composites among noise; a small run of `make chaos-rules`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.bus.bus import Bus
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.settings import Settings
from tests.chaos.fire import Fire, under_fire
from tests.chaos.planted import plan

if TYPE_CHECKING:
    from streams.topics_apply import AppliedTopics

pytestmark = pytest.mark.broker


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    """As everywhere, with twelve partitions."""
    prefix = f"t{uuid.uuid4().hex[:8]}"
    return Settings(kafka_bootstrap=broker, topic_prefix=prefix, partitions=12, data_dir=tmp_path / ".mplp", http_port=0)


@pytest.fixture
async def bus(kafka: Kafka, codec: Codec, topics: AppliedTopics) -> AsyncIterator[Bus]:
    made = Bus(kafka, codec)
    yield made
    await made.close()


async def test_all_that_was_planted_is_said_once_and_nothing_else_while_workers_are_killed_and_stopped(
    settings: Settings, bus: Bus
) -> None:
    of = plan(20_000, 20.0, share=0.2, seed=3)
    fire = Fire(every_s=5.0, faults=("kill", "zombie", "kill", "pause"), seed=3)

    verdict = await under_fire(settings, bus, of, fire)

    assert verdict.faults == ()
    assert verdict.planted > 200
    assert fire.done["kill"] >= 1
