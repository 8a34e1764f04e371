"""The library that all services of o11y-4-ai share: telemetry, outgoing HTTP, the application
factory, contracts, settings.
"""
