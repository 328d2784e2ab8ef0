"""One build in one short-lived process: from a package to compiled trees that answered a request.

`python -m isopod.builder` reads a `BuildJob` as JSON on standard input and writes JSON lines:
{"step": ...} as it goes, and at the end {"result": ...} or {"error": ...}.
"""
