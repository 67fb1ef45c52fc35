"""The local cloud: an emulator, the demo, and a sample set-up to play with."""
