"""What the shell uses of the services without a server: pure functions, re-exported here so that the shell wires nothing itself."""

from __future__ import annotations

from services.modules.catalogue import OPERATIONS
from services.modules.catalogue import describe as describe_module
from services.modules.registration import registered_modules
from services.orchestrator.coverage import coverage_text
from services.orchestrator.definition import Definition
from services.orchestrator.definitions import parse, parse_valid, validate
from services.orchestrator.documents import read_document
from services.orchestrator.graph import draw
from services.orchestrator.store import AnyModule, AnyOperation
from services.orchestrator.timeline import timeline
from services.orchestrator.trial import Trial, measure, run_trial, story, verdict
from services.orchestrator.view import fold

__all__ = [
    "OPERATIONS",
    "AnyModule",
    "AnyOperation",
    "Definition",
    "Trial",
    "coverage_text",
    "describe_module",
    "draw",
    "fold",
    "measure",
    "parse",
    "parse_valid",
    "read_document",
    "registered_modules",
    "run_trial",
    "story",
    "timeline",
    "validate",
    "verdict",
]
