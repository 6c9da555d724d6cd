"""Where the embedded history of a test begins: with a schema that was made once."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest

from services.history.engine import FOLDER
from services.history.store import History
from streams.settings import Settings


@pytest.fixture(scope="session", autouse=True)
async def _schema_is_made_once(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    """A history that is opened in an empty folder finds the schema there, as the migrations have left it: making it anew takes seconds.

    Their way from nothing is seen by the tests of the schema, which call them themselves, and wherever a process is started.
    """
    made = tmp_path_factory.mktemp("schema-once")
    async with History(Settings(data_dir=made)):
        pass
    opened = History.open

    async def copied_and_opened(history: History) -> None:
        folder = history.settings.data_dir / FOLDER
        if history.embedded and not folder.exists():
            shutil.copytree(made / FOLDER, folder, symlinks=True)
        await opened(history)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "open", copied_and_opened)
        yield
