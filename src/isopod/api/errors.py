"""Every error as one JSON body: `{"error": {code, message, hint, whose, details, request_id}}`.

Also for what the framework finds: a wrong field, an unknown address, a wrong method. A fault of
ours is logged with its traceback and answered without it.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from isopod.errors import BadRequest, IsopodError, MethodNotAllowed, NotFound, UsageError

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    app.add_exception_handler(IsopodError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_fault)


def wire(error: IsopodError, request_id: str) -> dict[str, Any]:
    """The error's body, as in a response and as the last line of a stream."""
    return {"error": error.to_wire() | {"request_id": request_id}}


def respond(error: IsopodError, request_id: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.status == 503:
        headers["Retry-After"] = "1"
    if "retry_after_s" in error.details:
        headers["Retry-After"] = str(error.details["retry_after_s"])
    return JSONResponse(wire(error, request_id), status_code=error.status, headers=headers)


def request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


def as_ours(error: Exception) -> IsopodError:
    """An error of ours, or the one that stands for a fault nobody foresaw."""
    if isinstance(error, IsopodError):
        return error
    return IsopodError(
        "the node made a mistake", hint="its standard error shows the traceback; please report it"
    )


async def _on_ours(request: Request, error: Exception) -> Response:
    return respond(as_ours(error), request_id(request))


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Only where and why: `input` may hold values of environment variables.
    found = [
        {"field": ".".join(str(part) for part in one["loc"]), "why": str(one["msg"])}
        for one in error.errors()
    ]
    first = found[0] if found else {"field": "body", "why": "it cannot be read"}
    kind = (
        BadRequest if any(e.get("type") == "json_invalid" for e in error.errors()) else UsageError
    )
    said = kind(f"{first['field']!r}: {first['why'].lower()}", details={"fields": found})
    return respond(said, request_id(request))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said: IsopodError
    if error.status_code == 404:
        said = NotFound(
            f"there is nothing at {request.url.path!r}", hint="see /v1/openapi.json for what is"
        )
    elif error.status_code == 405:
        said = MethodNotAllowed(f"{request.url.path!r} does not take {request.method}")
    else:
        said = BadRequest(str(error.detail))
    response = respond(said, request_id(request))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _on_fault(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request_id(request), exc_info=error)
    return respond(as_ours(error), request_id(request))
