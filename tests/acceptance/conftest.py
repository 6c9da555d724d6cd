"""The product as its users have it: `mplp up` once for all acceptance tests, on free ports and a data folder of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.product import Product
from tests.scheduling import in_one_process


@pytest.fixture(scope="package")
def product(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Everything, ready."""
    in_one_process(request)
    made = Product(tmp_path_factory.mktemp("product"))
    up = made.mplp("up", "--detach", "--json", timeout=600)
    assert up.code == 0, up.err
    assert up.json["status"] == "ready"
    yield made
    made.mplp("down")
