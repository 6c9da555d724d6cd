"""Whether a process for extensions is wanted. It loads nothing, since `mplp up` asks before it starts anything."""

from __future__ import annotations

from importlib.metadata import entry_points

from streams.settings import Settings

#: Group of the entry points of extensions; the same as `services.modules.extension.state.GROUP`.
GROUP = "mplp.extensions"


def is_wanted(settings: Settings) -> bool:
    """Whether `mplp up` runs a host of extensions: see the setting."""
    return settings.extensions == "on" or (settings.extensions == "auto" and bool(entry_points(group=GROUP)))
