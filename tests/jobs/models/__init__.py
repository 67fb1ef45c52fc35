"""Tests of jobs.models."""
