"""From the download of a public data set to a table for `data: {name: table}`: one file a data set, no pixel copied."""
