"""Correlation: rules (`rules`, `parse`), the pure engine that finds their composites (`engine`, one file per type in `folds`),
what a composite says (`explain`), and the two stages of the worker: `match` and `correlate`.

The engine knows no clock, no broker and no partitions: it is fed matches and told how far event time has come.
"""
