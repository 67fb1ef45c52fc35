"""Jobs: a request becomes a part, a long manifest becomes shards, and the last part brings the summary."""
