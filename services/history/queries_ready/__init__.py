"""The saved queries that come along: one file each, see `services.history.saved`."""
