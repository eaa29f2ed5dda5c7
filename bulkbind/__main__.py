"""Lets `python -m bulkbind` be the command."""

from bulkbind.cli import main

if __name__ == "__main__":
    main()
