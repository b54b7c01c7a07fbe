"""The files of a run: their paths and formats, writing and reading them, and the lock of the folder."""
