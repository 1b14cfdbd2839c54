"""The real engine over a fake transport, in virtual time, with a seed: what the promises look like at scale."""
