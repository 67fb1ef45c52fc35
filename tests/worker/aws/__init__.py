"""Tests of worker.aws."""
