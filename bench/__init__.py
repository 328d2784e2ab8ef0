"""Figures beside their targets. Never a timed test: run by hand with `make bench`."""
