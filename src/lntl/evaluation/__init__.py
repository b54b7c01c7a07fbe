"""Run the networks once on a split, then compute every metric from their predictions."""
