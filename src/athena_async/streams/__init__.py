"""One bidirectional call per channel, and whose answer is whose."""
