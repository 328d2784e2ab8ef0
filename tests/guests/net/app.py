"""Runs the code of the request's body, and answers with the `result` that it leaves."""

import json
import sys

kept = {}


def app(environ, start_response):
    code = environ["wsgi.input"].read().decode()
    names = {"kept": kept}
    try:
        exec(compile(code, "/app/sent.py", "exec"), names)
        result = names.get("result")
    except Exception as error:
        result = {
            "error": type(error).__name__,
            "bases": [kind.__name__ for kind in type(error).__mro__],
            "number": getattr(error, "errno", None),
            "text": str(error),
            "reason": getattr(error, "reason", None) and str(error.reason),
        }
        import traceback

        traceback.print_exc(file=sys.stderr)
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps(result, default=repr).encode()]
