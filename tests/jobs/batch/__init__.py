"""Tests of jobs.batch."""
