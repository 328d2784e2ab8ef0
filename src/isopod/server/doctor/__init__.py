"""`isopod doctor`: looks at this machine, the installed versions and a data directory, changes
nothing, and needs no node."""
