"""Datasets: found, downloaded, hashed, split and decoded. An image that cannot be used is left out with a reason."""
