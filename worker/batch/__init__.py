"""Jobs: requests to parts, long manifests to shards, the last part to a summary."""
