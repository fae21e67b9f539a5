"""Judges of what the ledger wrote."""
