"""Runs where there is time: training, reports, the embedded cloud, the command line."""
