"""Make a table for `data: {name: table}` from the download of a public data set: one file per data set."""
