"""What a guest may be granted of the world outside: the host's side of each capability.

Each is asked through the one host call (see `capabilities`) and may refuse. They do not know each
other.
"""
