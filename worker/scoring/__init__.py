"""Scoring: from the bytes of an image to P(class 1)."""
