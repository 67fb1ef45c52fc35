"""Accounts, stacks and machines elsewhere, and the same on this one to play with."""
