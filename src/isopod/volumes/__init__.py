"""Volumes on a node's disk: where they are, who holds one, what goes in and comes out."""
