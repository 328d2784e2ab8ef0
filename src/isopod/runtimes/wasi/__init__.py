"""WASI preview 1 modules as CGI programs: a request in the environment and on standard input, the
response on standard output, a fresh instance for each."""
