"""Python: CPython 3.15 for WASI, serving WSGI."""
