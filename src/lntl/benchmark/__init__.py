"""Train many runs of several methods and compare them."""
