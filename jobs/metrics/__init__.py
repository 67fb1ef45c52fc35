"""Metrics: figures with confidence intervals, computed from scores. No TensorFlow, no Keras, no file access.

Inputs are NumPy arrays (``arrays``). ``drift``, ``scored_images``, ``threshold_rule`` and ``wilson`` need no SciPy and
no scikit-learn either, so the batch report and ``twofold model show`` work without the training libraries.
"""
