"""The host of extensions with real processes: whatever an extension does concerns nobody but itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.modules import OperationFailed
from services.modules.extension import host as hosting
from services.modules.extension.host import ExtensionHost, Wanted
from services.modules.extension.state import GROUP
from services.processes import extensions_wanted
from services.processes.liveness import is_alive_pid
from services.processes.supervisor import children_of
from streams.records import ModuleMessage
from streams.settings import Settings
from tests.unit.modules.extensions_of_tests import installed

__all__ = ["installed"]

PATIENCE_S = 120.0
MEMORY_BYTES = 256 * 2**20


class World:
    """What surrounds a host: the extension module, as far as the host sees it."""

    def __init__(self) -> None:
        self.active: list[dict[str, Any]] = []
        self.told: list[tuple[str, str, Any]] = []
        self.host = ExtensionHost(self.ask, self.tell, memory_bytes=MEMORY_BYTES)

    async def ask(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        assert (operation, parameters["status"]) == ("list", "active")
        shown = [each for each in self.active if each["extensionId"] > parameters["after"]][:1]
        return {"extensions": shown, "next": shown[0]["extensionId"] if shown and shown[0] is not self.active[-1] else None}

    async def tell(self, message: ModuleMessage) -> None:
        assert (message.kind, message.target_module) == ("notification", "extension")
        assert isinstance(message.data, dict)
        self.told.append((message.operation, message.subject, message.data.get("reason", message.data.get("report"))))

    async def load(self, name: str, extension_id: str = "", **config: Any) -> Wanted:
        wanted = Wanted(extension_id=extension_id or name, entry_point=name, config=config)
        await self.host.load(wanted)
        return wanted

    async def refusal(self, name: str, **config: Any) -> str:
        with pytest.raises(OperationFailed) as failed:
            await self.load(name, **config)
        assert name not in self.host.loaded
        return f"{failed.value.code}: {failed.value.message}"


@pytest.fixture
async def world(installed: Path) -> AsyncIterator[World]:
    world = World()
    yield world
    await world.host._end()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.host.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_extension_lives_in_a_process_of_its_own(world: World) -> None:
    wanted = await world.load("good", colour="red")
    report: Any = await world.host.check(wanted)
    assert report == {"healthy": True, "config": {"colour": "red"}, "pid": world.host.loaded["good"]}
    assert report["pid"] != os.getpid()
    await world.host.load(wanted)
    assert world.host.loaded["good"] == report["pid"], "a repeated request loads nothing again"
    assert await world.host.unload(wanted) == {"loaded": False}
    assert not is_alive_pid(report["pid"])
    assert world.told == []


async def test_an_object_without_anything_to_call_is_fine(world: World) -> None:
    wanted = await world.load("plain")
    assert await world.host.check(wanted) == {"healthy": True}
    assert await world.host.unload(wanted) == {"loaded": False}


async def test_what_cannot_be_loaded_says_why_and_leaves_no_process(world: World) -> None:
    neighbour = await world.load("good")
    assert await world.refusal("broken") == "extension.failed: activate: RuntimeError: no such thing"
    assert (
        await world.refusal("nobody") == "extension.unknown: No installed package has an entry point 'nobody' in the group mplp.extensions."
    )
    assert (await world.refusal("missing")).startswith("extension.failed: load: AttributeError")
    assert await world.refusal("leaving", how="at once") == "extension.ended: load: Its process ended with exit code 3."
    assert await world.refusal("leaving", how="politely") == "extension.failed: activate: SystemExit: bye"
    assert list(world.host.loaded) == ["good"]
    assert await world.host.check(neighbour) == {"healthy": True, "config": {}, "pid": world.host.loaded["good"]}


async def test_one_that_hangs_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbour = await world.load("good")
    wanted = await world.load("hanging")
    pid = world.host.loaded["hanging"]
    monkeypatch.setattr(hosting, "CHECK_S", 0.2)
    with pytest.raises(OperationFailed, match=r"extension\.hangs: check: It did not answer within 0\.2 s"):
        await world.host.check(wanted)
    assert not is_alive_pid(pid)
    monkeypatch.setattr(hosting, "CHECK_S", 5.0)
    assert (await world.host.check(neighbour))["healthy"] is True  # type: ignore[call-overload,index]


async def test_one_that_takes_too_much_memory_does_not_get_it(world: World) -> None:
    wanted = await world.load("hungry")
    with pytest.raises(OperationFailed, match=r"extension\.memory"):
        await world.host.check(wanted)
    assert world.host.loaded == {}


async def test_one_whose_report_is_no_json_is_not_well(world: World) -> None:
    wanted = await world.load("odd")
    with pytest.raises(OperationFailed, match=r"extension\.failed: PydanticSerializationError"):
        await world.host.check(wanted)


async def test_one_that_ends_by_itself_is_told(world: World) -> None:
    await world.load("good")
    await world.load("leaving", how="later")
    await until(lambda: bool(world.told))
    assert world.told == [("failed", "leaving", "Its process ended with exit code 7.")]
    await world.load("leaving", how="never")
    os.kill(world.host.loaded["leaving"], signal.SIGSEGV)
    await until(lambda: len(world.told) == 2)
    assert world.told[1] == ("failed", "leaving", "Its process was ended by SIGSEGV.")
    assert list(world.host.loaded) == ["good"]


async def test_one_that_will_not_go_is_gone_all_the_same(world: World) -> None:
    wanted = await world.load("good", stubborn=True)
    pid = world.host.loaded["good"]
    with pytest.raises(OperationFailed, match="ValueError: it will not go"):
        await world.host.unload(wanted)
    assert not is_alive_pid(pid)
    assert world.host.loaded == {}


async def test_a_host_loads_what_is_active_and_asks_it_how_it_is(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hosting, "ROUND_S", 0.05)
    marker = tmp_path / "sick"
    world.active = [
        {"extensionId": "a", "entryPoint": "good", "config": {"marker": str(marker)}},
        {"extensionId": "b", "entryPoint": "broken", "config": {}},
        {"extensionId": "c", "entryPoint": None, "config": {}},
        {"extensionId": "d", "entryPoint": "leaving", "config": {"how": "by signal"}},
    ]
    async with running(world):
        await until(lambda: {name for _, name, _ in world.told} >= {"b", "d"})
        del world.active[1:]
        assert ("failed", "b", "extension.failed: activate: RuntimeError: no such thing") in world.told
        assert ("failed", "d", "extension.ended: check: Its process was ended by SIGKILL.") in world.told
        assert list(world.host.loaded) == ["a"]
        marker.touch()
        await until(lambda: world.told[-1] == ("checked", "a", {"healthy": False}))
        marker.unlink()
        await until(lambda: world.told[-1][0] == "checked" and world.told[-1][2]["healthy"] is True)
        pid = world.host.loaded["a"]
    assert not is_alive_pid(pid)


def test_mplp_up_runs_a_host_where_extensions_are_installed(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(**settings: Any) -> list[str]:
        return [child.name for child in children_of(Settings(**settings))]

    assert extensions_wanted.GROUP == GROUP
    assert "extensions-1" not in names()
    assert "extensions-1" in names(extensions="on")
    monkeypatch.syspath_prepend(str(installed))
    assert names() == ["core-1", "worker-1", "extensions-1", "gateway-1"]
    assert "extensions-1" not in names(extensions="off")
