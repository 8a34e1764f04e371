"""Traces, metrics and logs: the OpenTelemetry distribution, and the schema of names."""
