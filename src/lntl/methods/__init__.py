"""Training methods, one a file: each yields the objectives of its algorithm; the trainer minimises them."""
