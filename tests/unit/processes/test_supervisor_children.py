"""Which processes `mplp up` runs."""

from __future__ import annotations

from services.processes.supervisor import children_of
from streams.settings import Settings


def test_there_are_as_many_cores_and_workers_as_set_each_with_a_name_of_its_own() -> None:
    names = [child.name for child in children_of(Settings(cores=2, workers=3))]
    assert names == ["core-1", "core-2", "worker-1", "worker-2", "worker-3", "gateway-1"]


def test_one_of_each_by_default() -> None:
    assert [child.name for child in children_of(Settings())] == ["core-1", "worker-1", "gateway-1"]
