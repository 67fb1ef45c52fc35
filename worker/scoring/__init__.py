"""Scoring: image bytes to P(class 1)."""
