"""What the shell uses of the services without a server: pure functions, re-exported here so that the shell wires nothing itself.

A name is imported when it is first used: a command that asks a server loads neither the modules nor the workflow language.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.history.export_files import held
    from services.modules.catalogue import OPERATIONS
    from services.modules.catalogue import describe as describe_module
    from services.modules.catalogue import summary as summary_of_module
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

_PLACES = {
    "services.history.export_files": {"held": "held"},
    "services.modules.catalogue": {"OPERATIONS": "OPERATIONS", "describe_module": "describe", "summary_of_module": "summary"},
    "services.modules.registration": {"registered_modules": "registered_modules"},
    "services.orchestrator.coverage": {"coverage_text": "coverage_text"},
    "services.orchestrator.definition": {"Definition": "Definition"},
    "services.orchestrator.definitions": {"parse": "parse", "parse_valid": "parse_valid", "validate": "validate"},
    "services.orchestrator.documents": {"read_document": "read_document"},
    "services.orchestrator.graph": {"draw": "draw"},
    "services.orchestrator.store": {"AnyModule": "AnyModule", "AnyOperation": "AnyOperation"},
    "services.orchestrator.timeline": {"timeline": "timeline"},
    "services.orchestrator.trial": {name: name for name in ("Trial", "measure", "run_trial", "story", "verdict")},
    "services.orchestrator.view": {"fold": "fold"},
}
_MODULE_OF = {name: (module, original) for module, names in _PLACES.items() for name, original in names.items()}

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
    "held",
    "measure",
    "parse",
    "parse_valid",
    "read_document",
    "registered_modules",
    "run_trial",
    "story",
    "summary_of_module",
    "timeline",
    "validate",
    "verdict",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, original = _MODULE_OF[name]
    value = globals()[name] = getattr(importlib.import_module(module), original)
    return value
