"""Tests of jobs.commands."""
