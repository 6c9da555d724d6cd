"""Fixtures of the tests of modules on the real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streams.bus import Bus, connect
from streams.codec.avro import Codec
from streams.settings import Settings


@pytest.fixture
async def bus(settings: Settings, codec: Codec) -> AsyncIterator[Bus]:
    """A connection to the test's topics."""
    async with connect(settings) as bus:
        yield bus
