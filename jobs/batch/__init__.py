"""Batch jobs as their user sees them: images in, one table out."""
