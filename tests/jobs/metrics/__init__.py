"""Tests of jobs.metrics."""
