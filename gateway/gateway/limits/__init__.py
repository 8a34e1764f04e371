"""Limits of keys and tenants: calls and tokens in a minute, and calls at once."""
