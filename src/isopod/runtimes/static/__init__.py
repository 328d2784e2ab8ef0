"""Static sites: files that the gateway serves itself, from an index made when they were deployed.

Everything that costs is done by the builder: hashes, compressed variants, content types, and the
reading of `_headers` and `_redirects`. A request is a look-up in a table, so there is no path to
escape by, and no instance to wake.
"""
