"""Networks f, g and h (one architecture a file) and the heads they share."""
