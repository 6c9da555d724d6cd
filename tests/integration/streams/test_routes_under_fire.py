"""Routes while workers are killed and stopped, dead letters while commands are: small runs of `make chaos-routes`."""

from __future__ import annotations

import random

import pytest

from streams.settings import Settings
from tests.chaos.deliveries import Load
from tests.chaos.fire import Fire
from tests.chaos.redrive import redriven
from tests.chaos.routes import delivered

pytestmark = pytest.mark.broker


async def test_every_event_is_delivered_or_dead_once_in_the_topic_and_in_order_while_workers_are_killed_and_stopped(
    settings: Settings,
) -> None:
    load = Load(events=1500, keys=100, rate=150.0, hooked=20, failing=2, forever=True, slow=6)
    fire = Fire(every_s=2.0, faults=("kill", "zombie"), seed=5)

    report = await delivered(settings, load, fire, count=2, slow_s=2.0)

    assert report["wrong"] == []
    assert report["faults_injected"].keys() == {"kill", "zombie"}
    assert (report["in_topic"], report["dead"], report["slow"]) == (1500, 15, 6)


async def test_chosen_letters_come_back_once_and_in_order_though_commands_are_killed_and_meet(settings: Settings) -> None:
    report = await redriven(settings, 6000, random.Random(5), kills=2, say=lambda _: None)

    assert report["wrong"] == []
    assert all(said.endswith("put back …") for said in report["killed"]), "they were killed in the middle"
