"""Agents over what the ledger writes: each a few lines around `insight`, on faust.

faust has no types that hold, so nothing outside of this room sees it, and in it only `transport`,
`tables`, `app`, and of its names `worker` do.
"""
