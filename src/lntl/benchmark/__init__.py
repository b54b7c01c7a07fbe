"""Many runs of many methods, and their comparison."""
