"""Show what runs found: pure functions of their results."""
