"""`/healthz`, `/readyz`, `/metrics`, and the index at `/`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
from services.gateway.ports import Check
from streams.errors import BackboneError

router = APIRouter(tags=["operation"])

#: Seconds that a readiness check may take.
CHECK_TIMEOUT_S = 3.0


@router.get("/healthz", response_class=Answer, summary="Is the process alive?", description="Needs no key and asks nothing of the others.")
async def healthz() -> Any:
    """Alive."""
    return Answer({"status": "ok"})


@router.get(
    "/readyz",
    response_class=Answer,
    summary="Does everything answer?",
    responses={503: {"description": "Something does not."}},
    description="Needs no key. 200 if every check is well, else 503; either way every check with what it saw. `exclude` leaves checks out, "
    "so that a load balancer can go on while, say, the history is away.",
)
async def readyz(request: Request, exclude: Annotated[list[str], Query(description="Names of checks to leave out.")] = []) -> Any:  # noqa: B006  FastAPI copies it
    """All checks, at once."""
    checks = {name: check for name, check in ports_of(request).checks.items() if name not in exclude}
    seen = dict(zip(checks, await asyncio.gather(*map(_seen, checks.values())), strict=True))
    ready = all(check.ok for check in seen.values())
    content = {
        "status": "ready" if ready else "not-ready",
        "checks": {
            name: {"ok": check.ok, "detail": check.detail, **({"figures": dict(check.figures)} if check.figures else {})}
            for name, check in seen.items()
        },
    }
    return Answer(content, status_code=200 if ready else 503)


async def _seen(check: Callable[[], Awaitable[Check]]) -> Check:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return Check(ok=False, detail=f"no answer within {CHECK_TIMEOUT_S:.0f} s")
    except BackboneError as error:
        return Check(ok=False, detail=f"{error.code}: {error.message}")


@router.get("/metrics", response_class=Response, summary="Metrics for Prometheus", dependencies=[Depends(requires(Role.READER))])
async def metrics(request: Request) -> Response:
    """The exposition."""
    body, content_type = request.app.state.metrics.render(await ports_of(request).modules.figures())
    return Response(body, headers={"Content-Type": content_type})


@router.get("/", response_class=Answer, summary="What is here", description="Needs no key.")
async def index(request: Request) -> Any:
    """Name, version, and where the rest is."""
    links = {name: f"/v1/{name}" for name in ("executions", "events", "stream", "query", "rules", "modules")}
    others = {"openapi": "/openapi.json", "schemas": "/subjects", "metrics": "/metrics", "health": "/healthz", "readiness": "/readyz"}
    return Answer({"name": request.app.title, "version": request.app.version, "links": links | others})
