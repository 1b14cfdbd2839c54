"""Channels to endpoints: which one is healthy, and which gets the next batch."""
