"""The subcommands of ``twofold``, one group a file: each reads options, calls the rest, and prints."""
