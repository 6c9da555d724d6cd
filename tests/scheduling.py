"""Which tests run in one process when several share a run (pytest-xdist).

A file's tests share what is made once for it, and the acceptance tests one running product. The distribution `loadgroup` is meant for
that, but what it writes into the names of tests is not read any more since pytest 9.2, so that every test was a group of its own: each
process started a product, and a command of the README met one in which the commands before it had never been.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Their tests go on where the ones before have left the product.
SHARE_PRODUCT = ("tests/acceptance/test_first_hour.py", "tests/acceptance/test_history.py", "tests/acceptance/test_readme.py")
#: Seeds and mutations share nothing.
SHARE_NOTHING = "tests/simulation/"


def group_of(nodeid: str) -> str:
    """The name of the group that a test belongs to."""
    file, _, _ = nodeid.partition("::")
    if file in SHARE_PRODUCT:
        return "product"
    return nodeid if file.startswith(SHARE_NOTHING) else file


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out whole groups, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def in_one_process(request: pytest.FixtureRequest) -> None:
    """Fails if tests that share a fixture were given to several processes. To be called where it is made, once per run."""
    folder = request.getfixturevalue("tmp_path_factory").getbasetemp()
    if hasattr(request.config, "workerinput"):
        (folder.parent / f"once-{request.fixturename}").touch(exist_ok=False)
