"""What can be set, as the configurations themselves say it: key, default, values and meaning."""

import ast
import difflib
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

BOUNDS: Final = {"ge": "from {}", "gt": "above {}", "le": "up to {}", "lt": "below {}"}

NEAR: Final = 0.75
"""How much alike, of 1, a word and one that is known are, where the one may be meant by the other."""


@dataclass(frozen=True)
class Setting:
    """A setting of a configuration."""

    key: str
    """Dotted, as after `--set`."""
    default: Any
    values: str
    """What it may be, in words."""
    meaning: str
    """A sentence or more; empty where the key says it."""


def settings_of(kind: type[BaseModel], *, above: str = "", skip: tuple[str, ...] = ()) -> Iterator[Setting]:
    """All settings of a configuration and of its sections, but those whose keys are skipped."""
    meanings = _meanings(kind)
    for name, field in kind.model_fields.items():
        key = f"{above}{name}"
        if key in skip:
            continue
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, above=f"{key}.", skip=skip)
        else:
            default = field.get_default(call_default_factory=True)
            yield Setting(key, default, _wanted(field.annotation, field.metadata), meanings.get(name, ""))


def like(key: str, keys: list[str]) -> str | None:
    """The key that somebody may have meant: spelt nearly so, or of a section that was left out.

    >>> like("epoch", ["epochs", "model.width"]), like("width", ["epochs", "model.width"]), like("x", ["epochs"])
    ('epochs', 'model.width', None)
    """
    by_last = _by_last(keys)
    if key in by_last:
        return by_last[key]
    near = difflib.get_close_matches(key, [*keys, *by_last], n=1, cutoff=NEAR)
    return by_last.get(near[0], near[0]) if near else None


def called(name: str, keys: list[str]) -> str | None:
    """The key of this very name, with its section, if it has one.

    >>> called("width", ["epochs", "model.width"]), called("epoch", ["epochs", "model.width"])
    ('model.width', None)
    """
    return name if name in keys else _by_last(keys).get(name)


def _by_last(keys: list[str]) -> dict[str, str]:
    """The keys by their last parts; of several the first."""
    return {one.rpartition(".")[2]: one for one in reversed(keys)}


def _meanings(kind: type[BaseModel]) -> dict[str, str]:
    """The texts below the fields of a class, in one line each.

    Pydantic finds them too, but for every class when it is made, which all commands and workers would wait for.
    """
    [node] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    texts = {}
    for field, below in itertools.pairwise(node.body) if isinstance(node, ast.ClassDef) else ():
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.replace("`", "").split())
    return texts


def _wanted(annotation: Any, metadata: Any = ()) -> str:
    """What a value of a type may be, in words."""
    *others, last = dict.fromkeys(_alternatives(annotation, metadata))
    return f"{', '.join(others)} or {last}" if others else last


def _alternatives(annotation: Any, metadata: Any) -> Iterator[str]:
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        own = [part for info in parts[1:] for part in getattr(info, "metadata", [info])]
        yield from _alternatives(parts[0], [*own, *metadata])
    elif kind in (Union, UnionType):
        for part in parts:
            if part is not NoneType:
                yield from _alternatives(part, metadata)
    elif kind is Literal:
        yield from map(str, parts)
    elif kind is tuple:
        yield f"a list, [...], of {_wanted(parts[0])}"
    elif kind is dict:
        yield "a section of KEY: VALUE"
    elif annotation is bool:
        yield "true or false"
    elif annotation in (int, float):
        bounds = (
            text.format(f"{bound:g}")
            for name, text in BOUNDS.items()
            for part in metadata
            if (bound := getattr(part, name, None)) is not None
        )
        yield " ".join(["a whole number" if annotation is int else "a number", *bounds])
    else:
        yield "a text"
