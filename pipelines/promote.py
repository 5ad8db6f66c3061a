"""Point an alias at a model version.

python -m pipelines.promote classifier@3 champion --registry URI   like: cellnet registry promote ...
"""

from cellnet.registry import AliasMove, Registry


def promote(ref: str, alias: str, *, registry_uri: str, reason: str = "", endpoint_url: str | None = None) -> AliasMove:
    """The move that was made. Raises NotFoundError, and ConflictError when another promoter was first."""
    return Registry.open(registry_uri, endpoint_url=endpoint_url).promote(ref, alias, reason=reason)


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["registry", "promote", *sys.argv[1:]]))
