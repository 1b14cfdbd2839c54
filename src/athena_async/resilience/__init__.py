"""Backoff, retry budget and limits."""
