"""The module that loads extensions: entry points of the group `mplp.extensions`, each in a process of its own.

An entry point names an object (or a class, which is called). Whatever of these it has is called: `activate(config)` when it is loaded,
`deactivate()` when unloaded, `health()` when somebody asks how it is (what it returns is the report; `False` or `{"healthy": false}` says
that it is not well). One that names a `Module` is served as long as it is active.

Whatever an extension does concerns itself alone: what raises is its error; what does not answer in time, takes more memory than it may, or
ends its process, is ended, and the extension module is told, which has it in `error` with the reason. Those that are active when the host
starts are loaded again, and all are asked how they are from time to time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from services.modules.extension.sandbox import Sandbox, Wrap
from services.modules.extension.state import HOST
from services.modules.user_module import Module, OperationFailed
from streams.errors import BackboneError
from streams.records import Json, ModuleMessage

_log = structlog.get_logger("extensions")

#: How long a call may take: to load and activate, to deactivate, to say how it is. Less than the extension module waits.
LOAD_S, UNLOAD_S, CHECK_S = 20.0, 8.0, 5.0
#: Time between two rounds of questions, seconds.
ROUND_S = 10.0


class Wanted(BaseModel):
    """Which extension."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    extension_id: str
    entry_point: str
    config: dict[str, Json] = Field(default_factory=dict)


#: Calls an operation of the module extension.
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
#: Sends a notification to the module extension.
Tell = Callable[[ModuleMessage], Awaitable[object]]


class ExtensionHost:
    """Holds the processes of the extensions. `memory_bytes`: what each may allocate."""

    def __init__(self, ask: Ask, tell: Tell, *, memory_bytes: int, wrap: Wrap = list) -> None:
        self.module = Module(HOST, description="Loads extensions, each in a process of its own.")
        self._ask = ask
        self._tell = tell
        self._memory_bytes = memory_bytes
        self._wrap = wrap
        self._loaded: dict[str, Sandbox] = {}
        self._healthy: dict[str, bool] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self.module.operation("load")(self.load)
        self.module.operation("unload")(self.unload)
        self.module.operation("check")(self.check)

    @property
    def loaded(self) -> Mapping[str, int]:
        """Process ids by extension."""
        return {extension_id: sandbox.pid for extension_id, sandbox in self._loaded.items()}

    async def load(self, wanted: Wanted) -> dict[str, Json]:
        """Loads and activates an extension in a process of its own."""
        async with self._turn(wanted.extension_id):
            if wanted.extension_id not in self._loaded:
                await self._load(wanted)
        return {"loaded": True}

    async def unload(self, wanted: Wanted) -> dict[str, Json]:
        """Deactivates an extension and ends its process, also if that goes wrong."""
        async with self._turn(wanted.extension_id):
            sandbox = self._forget(wanted.extension_id)
            if sandbox is not None:
                try:
                    await sandbox.call("unload", UNLOAD_S)
                finally:
                    await sandbox.end()
        return {"loaded": False}

    async def check(self, wanted: Wanted) -> Json:
        """Asks an extension how it is; one that this process has not loaded (it was restarted) is loaded again."""
        async with self._turn(wanted.extension_id):
            if wanted.extension_id not in self._loaded:
                await self._load(wanted)
            return await self._check(wanted.extension_id)

    async def run(self) -> None:
        """Loads what is active, then asks all how they are, until cancelled; ends their processes."""
        try:
            while True:
                try:
                    await self._load_active()
                except BackboneError as error:
                    _log.warning("extensions.unknown", code=error.code, reason=error.message)
                await asyncio.sleep(ROUND_S)
                await asyncio.gather(*(self._visit(extension_id) for extension_id in list(self._loaded)))
        finally:
            await asyncio.shield(self._end())

    async def _end(self) -> None:
        sandboxes = [found for extension_id in list(self._loaded) if (found := self._forget(extension_id)) is not None]
        await asyncio.gather(*(sandbox.end() for sandbox in sandboxes), return_exceptions=True)

    def _turn(self, extension_id: str) -> asyncio.Lock:
        return self._turns.setdefault(extension_id, asyncio.Lock())

    async def _load(self, wanted: Wanted) -> None:
        extension_id = wanted.extension_id

        def ended(how: str) -> None:
            if self._forget(extension_id) is not None:
                self._say(extension_id, "failed", {"reason": f"Its process {how}."})

        sandbox = await Sandbox.start(self._memory_bytes, ended, self._wrap)
        try:
            await sandbox.call("load", LOAD_S, {"entryPoint": wanted.entry_point, "config": wanted.config})
        except BaseException:
            await sandbox.kill()
            raise
        self._loaded[extension_id] = sandbox
        if not sandbox.is_alive:
            ended("ended")  # between its answer and now
        _log.info("extension.loaded", extension=extension_id, entry_point=wanted.entry_point, pid=sandbox.pid)

    async def _check(self, extension_id: str) -> Json:
        try:
            report = await self._loaded[extension_id].call("check", CHECK_S)
        except OperationFailed:
            sandbox = self._forget(extension_id)  # whoever cannot say how it is is not well
            if sandbox is not None:
                await sandbox.kill()
            raise
        self._healthy[extension_id] = not isinstance(report, Mapping) or report.get("healthy") is not False
        return report

    async def _visit(self, extension_id: str) -> None:
        """Asks one how it is; what has changed is told."""
        async with self._turn(extension_id):
            if extension_id not in self._loaded:
                return
            before = self._healthy.get(extension_id, True)
            try:
                report = await self._check(extension_id)
            except OperationFailed as error:
                self._say(extension_id, "failed", {"reason": f"{error.code}: {error.message}"})
                return
            if self._healthy[extension_id] != before:
                self._say(extension_id, "checked", {"report": report})

    async def _load_active(self) -> None:
        """Loads what is active and not loaded: the host was restarted."""
        after = ""
        while True:
            page = await self._ask("list", {"status": "active", "after": after})
            for each in page["extensions"]:
                if each["entryPoint"] is not None and each["extensionId"] not in self._loaded:
                    await self._restore(Wanted(extension_id=each["extensionId"], entry_point=each["entryPoint"], config=each["config"]))
            if page["next"] is None:
                return
            after = page["next"]

    async def _restore(self, wanted: Wanted) -> None:
        try:
            await self.load(wanted)
        except OperationFailed as error:
            self._say(wanted.extension_id, "failed", {"reason": f"{error.code}: {error.message}"})

    def _forget(self, extension_id: str) -> Sandbox | None:
        self._healthy.pop(extension_id, None)
        return self._loaded.pop(extension_id, None)

    def _say(self, extension_id: str, what: str, data: Mapping[str, Json]) -> None:
        """Tells the extension module, as long as that takes."""
        _log.warning("extension.told", extension=extension_id, what=what, **data)
        message = ModuleMessage(
            type="extension.notified",
            source=f"mplp/modules/{HOST}",
            subject=extension_id,
            data={"extension_id": extension_id, **data},
            kind="notification",
            source_module=HOST,
            target_module="extension",
            operation=what,
        )
        task = asyncio.create_task(self._told(message))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _told(self, message: ModuleMessage) -> None:
        while True:
            try:
                await self._tell(message)
                return
            except BackboneError as error:
                _log.warning("extension.untold", code=error.code, reason=error.message)
            await asyncio.sleep(1.0)
