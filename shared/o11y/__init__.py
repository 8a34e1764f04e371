"""What all services of o11y-4-ai share: telemetry, its schema, contracts, errors, the hop client,
the service factory.
"""
