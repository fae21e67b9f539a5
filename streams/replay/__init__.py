"""History through the same fold, offline: what would have been said, and when."""
