"""The application: what is mounted, in which order a request passes what."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from services.gateway import (
    dlq,
    events,
    executions,
    health,
    history,
    history_keeping,
    history_promote,
    modules,
    problems,
    query,
    routes,
    rules,
    stream,
    workflows,
)
from services.gateway.guard import Guard, Measured
from services.gateway.keys import Keys, Role, requires_by_method, role_of
from services.gateway.metrics import Metrics
from services.gateway.ports import Ports

DESCRIPTION = """Workflow executions, events, live streams, rules, modules, SQL history and schemas of the MPLP backbone.

Bodies are JSON and declared so. Every failure is `application/problem+json` (RFC 9457) with a stable `code`. Lists are paged: `items` and
`next`, a cursor. With API keys configured, a key is sent as `Authorization: Bearer` or `X-API-Key`; its role (reader, producer, operator,
admin) must reach what `x-mplp-role` says.
"""


def create_app(ports: Ports, *, keys: Keys | None = None, bind: str = "127.0.0.1") -> FastAPI:
    """The gateway over `ports`, for callers with `keys` (none: everyone is admin).

    On a loopback `bind` the Host header must be loopback, too.
    """
    app = FastAPI(
        title="MPLP backbone",
        version=importlib.metadata.version("mplp-backbone"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.ports = ports
    app.state.keys = keys or Keys()
    app.state.metrics = Metrics(ports.history.behind, ports.rule_figures, ports.route_lags)
    app.state.streams_open = 0
    problems.install(app)
    for module in (
        health,
        executions,
        events,
        stream,
        query,
        history,
        history_keeping,
        history_promote,
        rules,
        routes,
        dlq,
        workflows,
        modules,
    ):
        app.include_router(module.router)
    if ports.registry is not None:
        app.include_router(ports.registry, tags=["schemas"], dependencies=[Depends(requires_by_method)])
    app.add_middleware(Measured, metrics=app.state.metrics)
    app.add_middleware(Guard, bind=bind)
    app.openapi = lambda: described(app)  # type: ignore[method-assign]
    return app


def described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description: with the problem document as every route's failure, and the roles."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = schema.setdefault("components", {})
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        components["schemas"] = {"Problem": PROBLEM}
        roles = roles_by_route(app)
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                role = roles[path, method.upper()]
                operation["x-mplp-role"] = None if role is None else role.name.lower()
                operation["security"] = [] if role is None else [{"bearer": []}, {"key": []}]
                responses = operation["responses"]
                if "HTTPValidationError" in str(responses.get("422")):
                    del responses["422"]  # FastAPI's own shape, which we never answer with
                responses["default"] = {
                    "description": "A failure.",
                    "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
        app.openapi_schema = schema
    return app.openapi_schema


def roles_by_route(app: FastAPI) -> dict[tuple[str, str], Role | None]:
    """The role that every route asks for, by path and method; None: it is open to all."""
    roles = {}
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        for method in route.methods or ():
            roles[str(route.path), method] = None if dependant is None else role_of(dependant, method)
    return roles


PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "description": "urn:mplp:error: and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for a person."},
        "code": {"type": "string", "description": "Stable, for programs."},
        "pointer": {"type": "string", "description": "JSON pointer to the fault in what was sent."},
        "advice": {"type": "string", "description": "What to do next."},
        "faults": {"type": "array", "items": {"type": "object"}, "description": "Every fault of a document: code, pointer, message."},
    },
}
