"""Reports, model cards and tables of runs, made from their result files."""
