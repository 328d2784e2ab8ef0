"""What the node can be asked to do: one file per noun, the principal first."""
