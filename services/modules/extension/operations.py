"""Parameters and results of the extension operations."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from services.modules.extension.state import GROUP, Extension, Status
from services.modules.operation import Identifier, Listing, Name, Page, Parameters, Result, Text, Versioned, time_text
from streams.records import Json


class Install(Parameters):
    """Parameters of install."""

    name: Name = Field(description="Unique at its home.")
    entry_point: Name | None = Field(
        None,
        description=f"Name of an entry point in the group `{GROUP}` of an installed Python package. Without: there is nothing to load.",
    )
    version: Text = ""
    description: Text = ""
    config: dict[str, Json] = Field(default_factory=dict, description="Given to the extension when it is activated.")
    capabilities: list[Name] = Field(default_factory=list, max_length=100)


class OfExtension(Parameters):
    """Names an extension."""

    TARGETS: ClassVar[tuple[str, ...]] = ("extension_id",)

    extension_id: Identifier = Field(description="Id of the extension, from install or list.")


class Activate(OfExtension):
    """Parameters of activate."""


class Deactivate(OfExtension):
    """Parameters of deactivate; of a disabled extension it allows activation again."""

    reason: Text = ""


class Disable(OfExtension):
    """Parameters of disable: it cannot be activated until it is deactivated."""

    reason: Text = ""


class Uninstall(OfExtension):
    """Parameters of uninstall; an active extension is deactivated first."""

    reason: Text = ""


class Update(OfExtension, Versioned):
    """Parameters of update: what is not given stays. An active extension gets its new configuration with the next activation."""

    version: Text | None = None
    description: Text | None = None
    config: dict[str, Json] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.version is None and self.description is None and self.config is None:
            raise ValueError("give at least one of version, description, config")
        return self


class Get(OfExtension):
    """Parameters of get."""


class Health(OfExtension):
    """Parameters of health."""


class List(Page):
    """Parameters of list: conditions that all must hold."""

    status: Status | None = None
    capability: Name | None = None
    text: Text | None = Field(None, description="Part of the name or description, without regard to case.")


class ExtensionResult(Result):
    """An extension."""

    extension_id: str
    name: str
    version: str
    entry_point: str | None
    description: str
    config: dict[str, Json]
    capabilities: list[str]
    status: Status
    detail: str = Field(description="Why it is as it is; of one in error what went wrong.")
    revision: int
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, state: Extension) -> Self:
        """The extension as callers see it."""
        return cls(
            extension_id=state.extension_id,
            name=state.name,
            version=state.version,
            entry_point=state.entry_point,
            description=state.description,
            config=dict(state.config),
            capabilities=list(state.capabilities),
            status=state.status,
            detail=state.detail,
            revision=state.revision,
            created_at=time_text(state.created_us),
            updated_at=time_text(state.updated_us),
        )


class ExtensionList(Listing):
    """Extensions in order of their ids."""

    ENTRIES: ClassVar[str] = "extensions"
    KEY: ClassVar[str] = "extensionId"

    extensions: list[ExtensionResult]


class ExtensionGone(Result):
    """An extension that was uninstalled."""

    extension_id: str
    uninstalled: bool


class HealthResult(Result):
    """How an extension is."""

    extension_id: str
    status: Status
    healthy: bool = Field(description="Whether it is active and says that it is well.")
    detail: str
    report: Json = Field(description="What it said itself; null: it says nothing.")
    checked_at: str | None
