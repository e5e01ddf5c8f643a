"""What was decided, and kept: the ledger, the signature, the waivers, the report."""
