"""`python -m lntl` is the command line `lntl`."""

from lntl.cli import main

main()
