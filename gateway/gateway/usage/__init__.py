"""Usage as the ledger has it: over HTTP, and compared with invoices."""
