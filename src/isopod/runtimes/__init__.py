"""Language runtimes."""
