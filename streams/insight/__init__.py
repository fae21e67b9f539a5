"""The statistics over what the ledger writes: pure, as the budget model is."""
