"""JavaScript on QuickJS: Workers-style modules, bundled by esbuild when they are deployed."""
