"""The subcommands of ``twofold``, one group per file: each reads its options, calls other packages, and prints."""
