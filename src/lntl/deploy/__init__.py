"""Use a trained run: load its classifier, predict for files, export it."""
