"""Reactors: WebAssembly modules, from whatever language, that answer requests by our ABI."""
