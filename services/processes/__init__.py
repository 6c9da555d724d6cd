"""Wiring, and only wiring: which services and streams make up the core, the worker, the gateway and `mplp up`."""
