"""The composition root: builds, starts and stops a node's processes in order."""
