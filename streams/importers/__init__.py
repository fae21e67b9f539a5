"""Logs of real coding agents become our events."""
