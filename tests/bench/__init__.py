"""Benchmarks: ours against what one would write without it, in one run, on one machine. Not collected by pytest.

uv run python -m tests.bench worker --data cats_and_dogs_filtered
uv run python -m tests.bench train --data cats_and_dogs_filtered
"""
