"""A second judge of the topics, which shares no code with what wrote them.

It is written from the contract: the budget model and the wire, in their words and their order. So a
mistake in the ledger's fold is found here, which a second run of the same fold cannot see. It reads
plain JSON, imports nothing of ours (import-linter holds that), and does no I/O: records go in, the
first differences come out.

`wire` reads and refuses events, with `exact_json` and `times`, `limits` does the arithmetic of a policy, `task` is what one task has
used and stands at and `causes` says why, `partition` folds inputs, `refusals` refuses some, and `standing` says what follows from
them, in the words of `expected`; `judge` compares that with what is `found`, and with the `states` in
the end, by the rules of `values`. Where the first inputs are gone, `scope` says which tasks are judged.
"""
