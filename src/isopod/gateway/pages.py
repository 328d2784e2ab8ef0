"""Answers that no guest gave: unknown hosts, and errors with a stable code.

What a stranger sees is a fixed sentence per code; the details are in the app's log.
"""

from __future__ import annotations

import html
import json
import math

from isopod.errors import IsopodError

_SENTENCES = {
    "guest_failed": "The app failed while it answered.",
    "guest_protocol_error": "The app gave an answer that is not valid HTTP.",
    "stack_limit_exceeded": "The app failed while it answered.",
    "app_failed_to_start": "The app failed to start.",
    "app_syntax_error": "The app failed to start.",
    "module_invalid": "The app failed to start.",
    "entrypoint_not_found": "The app failed to start.",
    "entrypoint_not_callable": "The app failed to start.",
    "deadline_exceeded": "The app took longer than its deadline.",
    "cpu_limit_exceeded": "The app used more CPU than one request may.",
    "response_too_large": "The app's response is larger than it may be.",
    "memory_limit_exceeded": "The app reached its memory limit.",
    "module_too_costly": "The app's module takes too long, or too much memory, to be compiled.",
    "app_starting": "This app is still starting.",
    "machine_code_full": "This app waits for room for its machine code.",
    "overloaded": "Too many requests wait for this app.",
    "too_many_requests": "This app gets more requests than it may have.",
    # Whose app it is, and what was agreed with them, is no visitor's business.
    "quota_exceeded": "This app has used up what it may use for now.",
    "tenant_suspended": "This app is not served at the moment.",
    "node_busy": "This node has no memory left for another instance.",
    "disk_full": "This node's disk is full: it cannot start another instance.",
    "node_draining": "This node is shutting down.",
    "body_too_large": "The request body is larger than this app accepts.",
    "client_too_slow": "The request did not arrive in time.",
    "websocket_unsupported": "This app takes no WebSockets.",
    "volume_busy": "This app waits for its volume, which is being copied.",
    "volume_not_found": "This app's volume is gone; it is not served.",
    "blob_corrupt": "The app's stored files are damaged; it is not served.",
    "blob_missing": "The app's stored files are missing; it is not served.",
    "state_corrupt": "This node's database is damaged.",
}
# Statuses that differ from the error's own when it reaches a stranger through an app's host.
_STATUS = {
    "app_failed_to_start": 502,
    "app_syntax_error": 502,
    "module_invalid": 502,
    "module_too_costly": 502,
    "entrypoint_not_found": 502,
    "entrypoint_not_callable": 502,
    "volume_not_found": 502,
    "disk_full": 503,  # 507 says that the app needs more than it may have
}
# Unless the error itself knows better: details["retry_after_s"].
_RETRY_AFTER_S = {
    "app_starting": 2,
    "machine_code_full": 5,
    "module_too_costly": 60,
    "overloaded": 1,
    "node_busy": 2,
    "node_draining": 2,
    "worker_unavailable": 2,
    "state_busy": 1,
    "volume_busy": 2,
    "too_many_requests": 1,
}
# Their hints are for the tenant.
_NO_HINT = frozenset({"quota_exceeded", "tenant_suspended", "volume_not_found"})


def error_page(
    error: IsopodError, *, request_id: str, accept: str
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body: JSON, or HTML for a browser."""
    status = _STATUS.get(error.code, error.status)
    public = error.whose == "caller"
    sentence = _SENTENCES.get(error.code, "")
    if not sentence:
        sentence = (
            (error.message[:1].upper() + error.message[1:] + ".")
            if public
            else ("This node could not answer the request.")
        )
    hint = error.hint if public and error.code not in _NO_HINT else ""
    if wants_html(accept):
        kind, body = (
            b"text/html; charset=utf-8",
            _html(status, error.code, sentence, hint, request_id),
        )
    else:
        kind = b"application/json"
        body = json.dumps(
            {
                "error": {
                    "code": error.code,
                    "message": sentence,
                    "hint": hint,
                    "request_id": request_id,
                }
            }
        )
    encoded = body.encode()
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(encoded)).encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"Accept"),
        (b"x-isopod-error", error.code.encode()),
    ]
    if error.code in _RETRY_AFTER_S:
        headers.append((b"retry-after", str(retry_after_s(error)).encode()))
    return status, headers, encoded


def retry_after_s(error: IsopodError) -> int:
    """Whole seconds, at least 1 (RFC 9110 10.2.3)."""
    given = error.details.get("retry_after_s", _RETRY_AFTER_S.get(error.code, 1))
    return max(1, math.ceil(float(given)))


def wants_html(accept: str) -> bool:
    """Whether the client, a browser most likely, prefers HTML over JSON (RFC 9110 12.5.1)."""
    best = {"text/html": -1.0, "application/json": -1.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if kind in best:
            best[kind] = max(best[kind], quality)
    return best["text/html"] > max(best["application/json"], 0.0)


def _html(status: int, code: str, sentence: str, hint: str, request_id: str) -> str:
    parts = [html.escape(text) for text in (sentence, hint, code, request_id)]
    sentence, hint, code, request_id = parts
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{status} {code}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;
color:#222;background:#fff}}h1{{font-size:1.4em}}p.small{{color:#666;font-size:.85em}}
@media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}}}</style></head>
<body><h1>{sentence}</h1><p>{hint}</p>
<p class="small">{status} {code} &middot; request {request_id}</p></body></html>
"""
