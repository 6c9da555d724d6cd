"""Module context: the shared room in which roles, plans, traces and dialogs live; it has a life cycle."""
