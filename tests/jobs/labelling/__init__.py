"""Tests of jobs.labelling."""
