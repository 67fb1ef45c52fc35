"""Tests of worker.batch."""
