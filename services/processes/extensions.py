"""The process that loads extensions: `python -m services.processes.extensions`. One of them is enough; `mplp up` starts it where a package
with extensions is installed (`MPLP_EXTENSIONS`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from infra.guard import guarded
from services.modules.extension.host import ExtensionHost
from services.processes.runtime import connected, run_process, say_ready
from streams.bus import connect
from streams.records import ModuleMessage
from streams.settings import Settings
from streams.topics import REQUESTS, home_of


async def serve(settings: Settings) -> None:
    """Runs until cancelled."""
    await connected(settings)
    async with connect(settings) as bus:

        async def ask(operation: str, parameters: Mapping[str, Any]) -> Any:
            return await bus.call_module("extension", operation, parameters)

        async def tell(message: ModuleMessage) -> object:
            return await bus.send(REQUESTS, home_of(message.subject), message)

        host = ExtensionHost(ask, tell, memory_bytes=settings.extension_memory_bytes, wrap=guarded)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(host.module.run(settings, ready=say_ready))
            tasks.create_task(host.run())


def main() -> None:
    """Entry point."""
    run_process(serve)


if __name__ == "__main__":
    main()
