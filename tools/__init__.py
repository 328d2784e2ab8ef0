"""What the Makefile runs beside the tests. Not part of the installed package."""
