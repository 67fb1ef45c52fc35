"""Tests of jobs.local."""
