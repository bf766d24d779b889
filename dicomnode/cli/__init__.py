"""The `dicomnode` command: parses, calls, and maps errors to exit codes.

Heavy modules are imported by the command that needs them, so that `dicomnode --help`
and `dicomnode queue list` answer at once.
"""

from dicomnode.cli.app import main

__all__ = ["main"]
