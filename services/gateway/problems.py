"""Every failure as problem details (RFC 9457, `application/problem+json`) with our stable `code`. Never a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from streams.errors import BackboneError, Defect, Fault, InvalidInput, NotFound, Violation

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

#: Status of a request whose client went before the answer: for the metrics only, nobody gets it.
CLIENT_GONE = 499

#: Codes of failures that the HTTP layer itself reports, by status.
HTTP_CODES = {404: "route.unknown", 405: "method.not-allowed", 406: "accept.unsupported", 415: "content-type.unsupported"}


class UnsupportedMediaType(InvalidInput):
    """The body comes in a content type that this route does not take."""

    http_status = 415


class Unauthenticated(BackboneError):
    """No key, or an unknown one."""

    fault = Fault.CALLER
    http_status = 401


class TooMany(BackboneError):
    """The gateway has as many of these open as it allows; try again later."""

    fault = Fault.CALLER
    http_status = 429


class UnknownRoute(NotFound):
    """There is nothing at this path."""


def problem(status: int, content: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Response:
    """A response with problem details; `content` has at least `code` and `message`, everything else goes along."""
    body = {
        "type": f"urn:mplp:error:{content['code']}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": content["message"],
        **{name: value for name, value in content.items() if name != "message"},
    }
    return Response(orjson.dumps(body, default=str), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def of_error(error: BackboneError) -> Response:
    """The response that an error of ours becomes."""
    headers = {}
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.http_status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = "1"
    return problem(error.http_status, error.to_dict(), headers=headers)


def pointer_of(location: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901) from a pydantic location."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def violations_of(errors: list[Any], *, code: str) -> list[Violation]:
    """Pydantic's errors as ours."""
    return [Violation(code=code, pointer=pointer_of(tuple(error["loc"])), message=str(error["msg"])) for error in errors]


async def _backbone(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BackboneError)
    if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.fault is not Fault.PEER:
        log.error("request.failed", code=error.code, message=error.message, exc_info=error)
    return of_error(error)


async def _validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [violation.to_dict() for violation in violations_of(list(error.errors()), code="parameter.invalid")]
    content = {"code": "parameter.invalid", "message": faults[0]["message"], "pointer": faults[0]["pointer"], "faults": faults}
    return problem(422, content)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "http.refused")
    message = f"There is nothing at {request.url.path}." if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
    return problem(error.status_code, {"code": code, "message": message}, headers=error.headers)


async def _defect(request: Request, error: Exception) -> Response:
    log.error("request.defect", path=request.url.path, exc_info=error)
    return of_error(Defect("internal", "Something went wrong that should not. The gateway's log says more."))


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


def install(app: FastAPI) -> None:
    """Makes every failure of `app` a problem."""
    app.add_exception_handler(BackboneError, _backbone)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _defect)
