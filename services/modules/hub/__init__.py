"""Module hub: which modules there are, several of them in one operation, messages that arrive, and checksums of what owners know."""
