"""Tests of jobs.data."""
