"""The module that loads extensions: entry points of the group `mplp.extensions`, each in this process, none able to end it.

An entry point names an object. Whatever of these it has is called: `activate(config)` when it is loaded, `deactivate()` when unloaded,
`health()` when somebody asks how it is (what it returns is the report; `{"healthy": false}` says that it is not well). What raises is an
error of that one extension.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from services.modules.extension.state import GROUP, HOST
from services.modules.user_module import Module, OperationFailed
from streams.records import Json


class Wanted(BaseModel):
    """Which extension."""

    model_config = ConfigDict(alias_generator=to_camel)

    extension_id: str
    entry_point: str
    config: dict[str, Json] = Field(default_factory=dict)


def host(find: Callable[[str], Any] | None = None) -> Module:
    """A new host. `find` gives the object of an entry point; by default that of the installed packages."""
    module = Module(HOST, description="Loads extensions.")
    loaded: dict[str, Any] = {}
    load_object = _installed if find is None else find

    @module.operation("load")
    def load(wanted: Wanted) -> dict[str, Json]:
        """Loads and activates an extension."""
        if wanted.extension_id not in loaded:
            found = _called("load", load_object, wanted.entry_point)
            _called("activate", getattr(found, "activate", None), wanted.config)
            loaded[wanted.extension_id] = found
        return {"loaded": True}

    @module.operation("unload")
    def unload(wanted: Wanted) -> dict[str, Json]:
        """Deactivates an extension and forgets it, also if that goes wrong."""
        found = loaded.pop(wanted.extension_id, None)
        _called("deactivate", getattr(found, "deactivate", None))
        return {"loaded": False}

    @module.operation("check")
    def check(wanted: Wanted) -> Json:
        """Asks an extension how it is; one that this process has not loaded (it was restarted) is loaded again."""
        if wanted.extension_id not in loaded:
            load(wanted)
        return _called("health", getattr(loaded[wanted.extension_id], "health", None)) or {"healthy": True}

    return module


def _called(name: str, function: Callable[..., Any] | None, *arguments: Any) -> Any:
    """What the extension's function returns. Raises `OperationFailed` (`extension.failed`) whatever it raises."""
    if function is None:
        return None
    try:
        return function(*arguments)
    except OperationFailed:
        raise
    except Exception as error:
        raise OperationFailed("extension.failed", f"{name}: {type(error).__name__}: {error}") from error


def _installed(name: str) -> Any:
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise OperationFailed("extension.unknown", f"No installed package has an entry point {name!r} in the group {GROUP}.")
    return next(iter(found)).load()
