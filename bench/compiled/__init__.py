"""The fold as machine code: an option. Nothing else of ours imports this."""
