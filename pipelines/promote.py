"""Point an alias at a model version.

A Ray job, like `cellnet registry promote`:

    python -m pipelines.promote classifier@3 champion --registry URI
"""

from cellnet.registry import AliasMove
from pipelines.places import Places


def promote(ref: str, alias: str, places: Places, *, reason: str = "") -> AliasMove:
    """The move that was made. Raises NotFoundError, and ConflictError when another promoter was first."""
    return places.open_registry().promote(ref, alias, reason=reason)


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["registry", "promote", *sys.argv[1:]]))
