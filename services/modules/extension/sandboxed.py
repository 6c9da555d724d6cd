"""The process of one extension: `python -m services.modules.extension.sandboxed MEMORY_BYTES`.

It reads calls from stdin and answers on stdout, a JSON object a line: `{"call": "load", "entryPoint", "config"}`, `{"call": "unload"}`,
`{"call": "check"}` → `{"result"}` or `{"error": {"code", "message"}}`. What the extension itself prints goes to stderr. It may allocate
`MEMORY_BYTES` at most (where the system counts that: Linux); beyond it Python raises `MemoryError`, or the process ends. It ends with its
stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import IO, Any

from pydantic_core import to_jsonable_python

from services.modules.extension.state import GROUP
from services.modules.user_module import Module, OperationFailed

#: The extension lets everybody else go before it.
NICENESS = 10


class Serving:
    """A users' module that an entry point named: it serves in a thread of its own."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"serving-{module.name}", daemon=True)
        self._error: BaseException | None = None

    def activate(self, _: Any) -> None:
        """Returns when it takes requests."""
        self._thread.start()
        self._ready.wait()
        self._raise()

    def deactivate(self) -> None:
        """Has it finish what runs."""
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def health(self) -> dict[str, bool]:
        """Whether it serves."""
        self._raise()
        return {"healthy": self._thread.is_alive()}

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._module.run(ready=self._ready.set))
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  whoever asks how it is gets it
            self._error = error
        finally:
            self._ready.set()


class Extension:
    """What an entry point names, and what is called of it."""

    def __init__(self) -> None:
        self._found: Any = None

    def call(self, wish: dict[str, Any]) -> Any:
        """What a call returns. Raises `OperationFailed` whatever the extension raises."""
        match wish["call"]:
            case "load":
                self._found = _called("load", _load, wish["entryPoint"])
                _called("activate", getattr(self._found, "activate", None), wish["config"])
                return {"loaded": True}
            case "unload":
                _called("deactivate", getattr(self._found, "deactivate", None))
                return {"loaded": False}
            case "check":
                report = _called("health", getattr(self._found, "health", None))
                return {"healthy": report} if isinstance(report, bool) else {"healthy": True} if report is None else report
            case other:
                raise OperationFailed("extension.call", f"There is no call {other!r}.")


def _load(name: str) -> Any:
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise OperationFailed("extension.unknown", f"No installed package has an entry point {name!r} in the group {GROUP}.")
    loaded = next(iter(found)).load()
    if isinstance(loaded, Module):
        return Serving(loaded)
    return loaded() if isinstance(loaded, type) else loaded


def _called(name: str, function: Callable[..., Any] | None, *arguments: Any) -> Any:
    if function is None:
        return None
    try:
        returned = function(*arguments)
        return asyncio.run(returned) if asyncio.iscoroutine(returned) else returned
    except OperationFailed:
        raise
    except MemoryError as error:
        raise OperationFailed("extension.memory", f"{name}: it wanted more memory than it may have.") from error
    except BaseException as error:  # also SystemExit: an extension does not end its process by saying so
        raise OperationFailed("extension.failed", f"{name}: {type(error).__name__}: {error}"[:1000]) from error


def answer(extension: Extension, line: str) -> dict[str, Any]:
    """The answer to a line."""
    try:
        return {"result": to_jsonable_python(extension.call(json.loads(line)))}
    except OperationFailed as error:
        return {"error": {"code": error.code, "message": error.message}}
    except Exception as error:  # noqa: BLE001  a report that is no JSON
        return {"error": {"code": "extension.failed", "message": f"{type(error).__name__}: {error}"[:1000]}}


def _private_stdout() -> IO[str]:
    """Our end of the pipe; what is printed goes to stderr from now on."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "w", buffering=1)


def main() -> None:
    """Entry point."""
    told = _private_stdout()
    limit = int(sys.argv[1])
    with contextlib.suppress(OSError, ValueError):  # a system that cannot count it
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    extension = Extension()
    for line in sys.stdin:
        told.write(json.dumps(answer(extension, line)) + "\n")
    # Threads of the extension may go on for ever; nobody wants them any more.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
