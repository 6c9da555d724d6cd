"""Schedules of published workflows: one aggregate per workflow, with a timer, that starts an execution at each of its times.

No module of the contract: nobody calls it. The cores tell it what is published, and it tells nobody but the orchestrator.
"""
