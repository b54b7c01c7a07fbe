"""The files of a run: their places, formats, how they are written and read, and the lock of the folder."""
