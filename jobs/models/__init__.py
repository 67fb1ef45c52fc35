"""Trained models: their bundles, the registry that lists them, and the promotion of a champion."""
