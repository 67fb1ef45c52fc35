"""Benchmarks: Twofold against what you would write without it, in one run on one machine. Pytest does not run them.

uv run python -m tests.bench worker --data cats_and_dogs_filtered
uv run python -m tests.bench train --data cats_and_dogs_filtered
"""
