"""Tests of jobs.cloud."""
