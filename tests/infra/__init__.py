"""Tests of what is deployed: templates, images and requirements."""
