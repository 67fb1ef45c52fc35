"""Classifies images by the batch, from a queue: small, quick to start, and free of any training library."""
