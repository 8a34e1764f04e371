"""A trace store for one machine: OTLP in, SQLite inside, Tempo's HTTP API out."""
