"""isopod: a WebAssembly cloud for one machine."""

__version__ = "0.1.0"
