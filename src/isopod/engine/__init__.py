"""The WebAssembly engine: the only package that imports wasmtime.

`config` says how the engine is set, `module_cache` keeps compiled modules, `linker` offers the
guest its imports, `instance` is one guest in one store, `scheduler` runs guests as fibers on an
asyncio loop, `traps` turns a guest's faults into our errors.
"""
