"""Measure: run the networks once, then compute every metric from the kept predictions."""
