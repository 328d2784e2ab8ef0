"""Ruby: Rack apps on the interpreter's own build for WebAssembly."""
