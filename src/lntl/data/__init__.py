"""Data sets (one plug-in a file) and the loader that makes batches of them."""
