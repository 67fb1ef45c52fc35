"""The chaos harness: what breaks a worker, done to real workers, and what became of every image that was asked for."""
