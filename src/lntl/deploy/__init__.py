"""Use a trained run: load its classifier, predict and explain files, export it."""
