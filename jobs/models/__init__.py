"""Bundles, once they are written: which there are, which is in use, whether another should be."""
