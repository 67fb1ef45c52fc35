"""Manifests: lists of images in any of six formats, read as a stream of references."""
