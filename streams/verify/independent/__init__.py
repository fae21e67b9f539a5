"""A second judge of the topics, which shares no code with what wrote them.

It is written from the contract: the budget model and the wire, in their words and their order. So a
mistake in the ledger's fold is found here, which a second run of the same fold cannot see. It reads
plain JSON, imports nothing of ours (import-linter holds that), and does no I/O: records go in, the
first differences come out.

`wire` reads and refuses events, `limits` does the arithmetic of a policy, `task` is what one task has
used and stands at, `partition` folds inputs into what they must have caused, `judge` compares.
"""
