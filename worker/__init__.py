"""A queue worker that classifies images in batches. It is small, starts quickly, and needs no training library."""
