"""Tests of worker.manifest."""
