"""Tests of jobs.training."""
