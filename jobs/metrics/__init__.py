"""Metrics: scores to figures with intervals. No TensorFlow, no Keras, no files.

They take NumPy arrays (``arrays``). ``drift`` and ``scored_images`` need neither SciPy nor scikit-learn either: the
batch report uses them without the training libraries.
"""
