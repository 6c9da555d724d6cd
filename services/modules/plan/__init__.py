"""Module plan: tasks with dependencies, approved, activated, worked off."""
