"""Tests of worker.scoring."""
