"""An audit of data before training."""
