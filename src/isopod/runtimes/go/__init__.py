"""Go: programs whose net/http handler is compiled to a reactor."""
