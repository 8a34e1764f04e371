"""Requests to other services: client, balancing over replicas, deadlines, server-sent events."""
