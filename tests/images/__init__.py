"""Tests that build the images and run what is in them."""
