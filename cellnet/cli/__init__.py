"""The front door: `cellnet NOUN VERB`. Data on stdout, narration on stderr; errors in one line, exit 2.

The one room that calls into pipelines and serve, and only when a command needs them: a file a noun, and beside them
    program     all commands, and how one ends
    parsing     commands, options and their values, and what is said where they are mistyped
    options     those that several commands share
    printing    tables and narration
    progress    how far a long command is
"""

from cellnet.cli.program import main

__all__ = ["main"]
