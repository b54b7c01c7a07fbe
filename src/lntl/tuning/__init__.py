"""Search the values of configuration keys that give the best metric on val, with Optuna."""
