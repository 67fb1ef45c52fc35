"""Metrics: scores to figures with intervals. Pure numpy, no files and no TensorFlow."""
