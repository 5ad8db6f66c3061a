"""What references mean as aliases move, asked again and again with few requests."""

from cellnet.errors import NotFoundError
from cellnet.registry.records import ModelVersion, parse_ref
from cellnet.registry.registry import Registry


class Following:
    """A registry whose answers are kept until an alias moves: to look whether one has is one read, and no list.

    Versions never change. That one was removed, or a whole registry replaced by another, only a new `Following` sees.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry.fresh()
        self._known: dict[str, ModelVersion | NotFoundError] = {}

    def resolve(self, ref: str) -> ModelVersion:
        """The version that a reference means now. Raises as `Registry.resolve` does."""
        name, _, alias = parse_ref(ref)
        if alias and ref in self._known and self.registry.moved(name, alias):
            del self._known[ref]
        if ref not in self._known:
            try:
                self._known[ref] = self.registry.resolve(ref)
            except NotFoundError as error:
                self._known[ref] = error
        known = self._known[ref]
        if isinstance(known, NotFoundError):
            raise known.with_traceback(None)
        return known
