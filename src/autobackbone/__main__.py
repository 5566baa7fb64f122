"""`python -m autobackbone`."""

from autobackbone.cli import main

main()
