"""Every performance scenario as a small program: ``python -m benchmarks --help``."""
