"""API keys of the gateway's callers."""
