"""Benchmarks of asyncdicom, side by side with other implementations: ``python -m benchmarks --list``."""
