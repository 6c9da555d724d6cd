"""The host's end of the process of one extension: calls with a time limit, and notice of its end. Nothing that it does harms ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from services.modules.user_module import OperationFailed
from streams.records import Json

#: Longest answer that is read, bytes; a longer one is an error.
ANSWER_BYTES_MAX = 1024 * 1024
#: How long a process that was told to end may take, seconds.
END_S = 3.0

Wrap = Callable[[list[str]], Sequence[str]]


class Sandbox:
    """One process. `wrap` puts a command around its own, e.g. one that has it die with us."""

    def __init__(self, process: asyncio.subprocess.Process, ended: Callable[[str], None]) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self._wanted = True  #: False: its end is our will, or known already
        self._watching = asyncio.create_task(self._watch(ended))

    @classmethod
    async def start(cls, memory_bytes: int, ended: Callable[[str], None], wrap: Wrap = list) -> Sandbox:
        """A new process. `ended` is called with the reason when it ends against our will."""
        command = [sys.executable, "-m", "services.modules.extension.sandboxed", str(memory_bytes)]
        process = await asyncio.create_subprocess_exec(
            *wrap(command), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=ANSWER_BYTES_MAX, start_new_session=True
        )
        return cls(process, ended)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def call(self, call: str, timeout_s: float, more: Mapping[str, Json] | None = None) -> Json:
        """What the extension answers. Raises `OperationFailed`: its error, `extension.hangs` (it is ended then), `extension.ended`."""
        async with self._turn:
            try:
                async with asyncio.timeout(timeout_s):
                    line = await self._exchange({"call": call, **(more or {})})
            except TimeoutError:
                await self.kill()
                raise OperationFailed("extension.hangs", f"{call}: It did not answer within {timeout_s:g} s, and was ended.") from None
            except (ConnectionError, ValueError):  # ValueError: a line beyond the limit
                line = b""
            if not line:
                self._wanted = False  # its end is told here, and not by who watches it, too
        if not line:
            reason = await self._reason()
            raise OperationFailed("extension.ended", f"{call}: Its process {reason}.")
        answer = json.loads(line)
        if "error" in answer:
            raise OperationFailed(answer["error"]["code"], answer["error"]["message"])
        return answer.get("result")

    async def _exchange(self, wish: Mapping[str, Json]) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wish).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._process.stdout.readline()

    async def end(self) -> None:
        """Closes its stdin, and ends it if it does not end by itself."""
        self._wanted = False
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            await self.kill()
        await self._watching

    async def kill(self) -> None:
        """Ends it at once."""
        self._wanted = False
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _reason(self) -> str:
        """How it ended; one that closed its pipe and lives is ended."""
        try:
            code = await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            await self.kill()
            return "closed its pipe"
        return how_ended(code)

    async def _watch(self, ended: Callable[[str], None]) -> None:
        code = await self._process.wait()
        if self._wanted and not self._turn.locked():  # else the call that goes on tells it
            ended(how_ended(code))


def how_ended(code: int) -> str:
    """An exit code in words; negative: a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
