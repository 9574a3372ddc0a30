"""The ledger and the journal: the one place where facts are kept."""
