"""How a broker's data folder is named."""

from __future__ import annotations

import uuid

from infra.kafka import new_cluster_id


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    """One of 64 random ids begins with a dash, and the first start of the broker failed with it."""
    drawn = iter([uuid.UUID(int=0xF8 << 120), uuid.UUID(int=0xFB << 120), uuid.UUID(int=1)])
    assert new_cluster_id(lambda: next(drawn)) == "AAAAAAAAAAAAAAAAAAAAAQ"


def test_cluster_ids_differ() -> None:
    assert len({new_cluster_id() for _ in range(100)}) == 100
