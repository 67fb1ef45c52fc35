"""Twofold on this machine: an emulator of AWS, the demo, and a playground with sample data."""
