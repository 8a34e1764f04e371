"""The vector service: a Chroma collection behind plain HTTP."""
