"""The `dicomnode` command."""


def main() -> None:
    """Entry point."""
    raise SystemExit(2)
