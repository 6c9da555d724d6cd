"""State and events of extensions, and the table of their life cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from services.modules.operation import Caller
from streams.records import Json

Status: TypeAlias = Literal["installed", "active", "inactive", "disabled", "error"]
#: What the host of extensions is asked for.
Wish: TypeAlias = Literal["load", "unload", "check"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "installed": ("active", "disabled", "error"),
    "active": ("inactive", "disabled", "error"),
    "inactive": ("active", "disabled", "error"),
    "error": ("active", "inactive", "disabled"),
    "disabled": ("inactive",),
}
LIFECYCLE = Lifecycle(noun="extension", initial=("installed",), table=TRANSITIONS)

#: Group of the entry points of extensions, and the module that loads them.
GROUP = "mplp.extensions"
HOST = "extension-host"
#: How long the host may take, microseconds.
WAIT_US = 30_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The host was asked for something. `status`: what the extension becomes when it is done."""

    wish: Wish
    caller: Caller
    number: int
    due_us: int
    status: Status
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An extension as it is. Without an entry point there is nothing to load: it is known, and has a state."""

    extension_id: str
    name: str
    version: str
    entry_point: str | None
    description: str
    config: Mapping[str, Json]
    status: Status
    revision: int
    created_us: int
    updated_us: int
    detail: str = ""  #: why it is as it is
    health: Json = None  #: what the last check said
    checked_us: int | None = None
    asked: Asked | None = None
    count: int = 0  #: how often the host was asked
    capabilities: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionInstalled:
    """An extension is known."""

    TYPE: ClassVar[str] = "extension.installed"
    name: str
    version: str = ""
    entry_point: str | None = None
    description: str = ""
    config: Mapping[str, Json] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionUpdated:
    """Attributes changed; null: as before."""

    TYPE: ClassVar[str] = "extension.updated"
    version: str | None = None
    description: str | None = None
    config: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAsked:
    """The host of extensions was asked for something."""

    TYPE: ClassVar[str] = "extension.host-asked"
    asked: Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionChecked:
    """The extension said how it is."""

    TYPE: ClassVar[str] = "extension.checked"
    health: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionTransitioned:
    """The extension's state changed."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "active": "extension.activated",
        "inactive": "extension.deactivated",
        "disabled": "extension.disabled",
        "error": "extension.failed",
    }
    before: Status
    after: Status
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionUninstalled:
    """The extension is gone; its history stays."""

    TYPE: ClassVar[str] = "extension.uninstalled"
    reason: str = ""


ExtensionEvent: TypeAlias = (
    ExtensionInstalled | ExtensionUpdated | HostAsked | ExtensionChecked | ExtensionTransitioned | ExtensionUninstalled
)  # fmt: skip
EVENTS = (ExtensionInstalled, ExtensionUpdated, HostAsked, ExtensionChecked, ExtensionTransitioned, ExtensionUninstalled)
