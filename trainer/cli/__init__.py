"""The `trainer` command. One module per command; `app` is the table of contents."""

from __future__ import annotations

from trainer.cli.app import main

__all__ = ["main"]
