"""The front door: `cellnet NOUN VERB`. Data on stdout, narration on stderr; errors in one line, exit 2.

The one room that calls into pipelines and serve, and only when a command needs them: a file a noun, and beside them
    program     all commands, and how one ends
    parsing     commands, options and their values, and what is said where they are mistyped
    options     those that several commands share
    printing    tables and narration
    progress    how far a long command is
"""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status, as `program.main` says; 130 for Ctrl-C while it is imported, too."""
    try:
        from cellnet.cli import program
    except KeyboardInterrupt:
        print("cellnet: stopped", file=sys.stderr)
        return 130
    return program.main(argv)
