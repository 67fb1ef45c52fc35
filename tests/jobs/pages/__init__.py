"""Tests of jobs.pages."""
