"""The tests mirror the packages; ``tests.bench`` holds the benchmarks."""
