"""Metrics: figures with confidence intervals, computed from scores. No TensorFlow, no Keras, no file access.

Inputs are NumPy arrays (``arrays``). ``drift`` and ``scored_images`` need no SciPy and no scikit-learn either, so the
batch report works without the training libraries.
"""
