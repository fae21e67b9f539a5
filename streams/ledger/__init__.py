"""The hot path: assignment, restore, read, fold, commit."""
