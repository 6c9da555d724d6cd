"""Module extension: what is added to a running system, as entry points of Python packages, each failing for itself alone."""
