"""Module core: workflows as a module. It keeps definitions, and asks the orchestrator for all else."""
