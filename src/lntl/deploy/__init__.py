"""A trained run put to use: loaded, run over files, exported."""
