"""The front door: `cellnet NOUN VERB`."""

from cellnet.cli.main import main

__all__ = ["main"]
