"""The environment of commands that are about this machine alone."""

import os


def forget_environment() -> None:
    """Profiles, endpoints, settings and proxies of the person's own must not steer them."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "TWOFOLD_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
