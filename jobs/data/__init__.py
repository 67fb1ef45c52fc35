"""Where pictures come from, and what becomes of each: found, hashed, split, decoded, or left out with a reason."""
