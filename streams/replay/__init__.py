"""History through the same fold, offline."""
