"""The command line: parse, call, print. Errors meet the user once, here."""

from publish.cli.group import main

__all__ = ["main"]
