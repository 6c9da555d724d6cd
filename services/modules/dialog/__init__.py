"""Module dialog: participants talk; what was said stays in order."""
