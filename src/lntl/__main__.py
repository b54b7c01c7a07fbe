"""Run the command line `lntl` with `python -m lntl`."""

from lntl.cli import main

main()
