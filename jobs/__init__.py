"""Training, reports, the command line and the local emulator: everything that runs before and around the worker."""
