"""Manifests: every kind of list of images, read as a stream of references."""
