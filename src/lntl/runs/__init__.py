"""The files of a run: paths, formats, reading and writing, and the lock of the folder."""
