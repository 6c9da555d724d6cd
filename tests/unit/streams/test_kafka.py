"""A broker that says for a while that there is no broker."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaError

from streams import kafka


class Fenced:
    """A client of a broker that its controller takes for dead, for so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    async def fetch_all_metadata(self) -> str:
        """What aiokafka's client does."""
        if self.left:
            self.left -= 1
            raise KafkaError("Unable to get cluster metadata over all known brokers")
        return "all topics"


async def test_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_ASK_AGAIN_S", 0)
    assert await kafka.cluster_metadata(Fenced(3)) == "all topics"


async def test_it_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_ASK_AGAIN_S", 0)
    monkeypatch.setattr(kafka, "NO_BROKER_S", 0)
    with pytest.raises(KafkaError):
        await kafka.cluster_metadata(Fenced(1))
