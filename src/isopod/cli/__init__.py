"""The command line: one file per noun. It knows the API's client and, for `up`, the server."""
