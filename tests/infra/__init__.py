"""Tests of what is deployed: templates, images, requirements."""
