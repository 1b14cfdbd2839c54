"""Adapters from events to logs, metrics and traces."""
