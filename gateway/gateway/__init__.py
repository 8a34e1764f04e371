"""The gateway: the public API of the pipeline."""
