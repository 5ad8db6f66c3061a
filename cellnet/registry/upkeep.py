"""Looking after a registry: check all that it holds, and clear away what no version needs."""

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from cellnet.errors import ConfigError, IntegrityError, NotFoundError, RegistryError, UnavailableError
from cellnet.registry.blobs import blob_key, fetch_blob, fetch_trashed, is_of, put_blob
from cellnet.registry.exchange import check_content
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import PUBLISH_S, Registry
from cellnet.store.objects import Entry

DAY_S: Final = 86_400
KEEP_DAYS: Final = 7.0
LEAST_KEEP_DAYS: Final = 4 * PUBLISH_S / DAY_S
"""Nobody may still be at work on a blob that has been in the trash for so long."""
SHA256: Final = "[0-9a-f]{64}"


class Finding(NamedTuple):
    """What was checked, a version or an alias, and what is wrong with it, if anything."""

    what: str
    problem: str | None


@dataclass(kw_only=True)
class Cleared:
    """What `gc` did, or would do."""

    trashed: int = 0
    """Blobs put into the trash, since no version names them."""
    restored: int = 0
    """Blobs taken out of it, since one does again."""
    removed: int = 0
    """Blobs removed for good."""
    removed_bytes: int = 0
    unfinished: int = 0
    """Left of writes that never ended."""


def verify(registry: Registry, name: str | None = None) -> Iterator[Finding]:
    """Every version and alias of a model, or of all: records, numbers, signatures, and every byte of every blob.

    Versions are signed where the registry was opened with trusted keys. Reads the store itself, never the cache.
    Raises NotFoundError for a model that is not there.
    """
    if name:
        registry.check_there(name)
    for model in [name] if name else registry.names():
        numbers = set()
        for listed in registry.versions(model):
            problem = listed.problem or (_problem(registry, listed.version) if listed.version else None)
            if problem is None:
                numbers.add(listed.ref)
            yield Finding(listed.ref, problem)
        for alias in registry.aliases(model):
            yield Finding(f"{model}:{alias}", _alias_problem(registry, model, alias, numbers))


def gc(
    registry: Registry,
    *,
    keep_days: float = KEEP_DAYS,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Cleared:
    """Put blobs that no version names into the trash, and remove what has been there for `keep_days`.

    A publisher may find a blob in its place, and name it just after it was trashed: readers look for it in the trash
    too, and the next gc puts it back. What is removed for good has been there for longer than any publishing takes.
    Models without a version, or with one whose record is damaged, are left alone. Raises ConfigError for too few days.
    """
    if not keep_days >= LEAST_KEEP_DAYS:
        raise ConfigError(f"the trash is kept for {LEAST_KEEP_DAYS:.2g} days at least, not for {keep_days:g}")
    cleared = Cleared()
    before = _time(registry, dry_run) - keep_days * DAY_S
    for name in registry.names():  # only there: a folder without versions may be somebody else's
        try:
            _clear(registry, name, before, cleared, dry_run=dry_run, say=say)
        except IntegrityError as error:
            say(f"{name} is left alone: {error}")
        if not dry_run:
            _sweep(registry, name, before, cleared, say)
    return cleared


def _time(registry: Registry, dry_run: bool) -> float:
    """By the clock that says how old its objects are."""
    try:
        return registry.store.now()
    except UnavailableError:
        raise
    except RegistryError:
        if not dry_run:
            raise
        return time.time()  # of a registry that may only be read, and is asked what would be done


def _problem(registry: Registry, version: ModelVersion) -> str | None:
    try:
        for role in version.blobs:
            check_content(role, fetch_blob(registry.store, version, role), version.card, version.ref)
    except UnavailableError:
        raise
    except RegistryError as error:
        return str(error)
    return None


def _alias_problem(registry: Registry, name: str, alias: str, whole: set[str]) -> str | None:
    try:
        registry.pointing(name, alias)  # whose error names the way out
        moves = registry.history(name, alias)
    except UnavailableError:
        raise
    except RegistryError as error:
        return str(error)
    if not moves:
        return "it has no moves that can be read"
    there = sorted({move.entry for move in moves}.union(*(move.settles for move in moves)))
    if there != list(range(1, len(there) + 1)):
        return f"moves are missing from its log: it has {', '.join(map(str, there))}"
    if f"{name}@{moves[-1].number}" not in whole:
        return f"it points at {name}@{moves[-1].number}, which is not whole"
    return None


def _clear(
    registry: Registry, name: str, before: float, cleared: Cleared, *, dry_run: bool, say: Callable[[str], None]
) -> None:
    """What is only deleted goes first, since a full disk may allow nothing else."""
    store = registry.store
    keys = {entry.key for entry in store.entries(f"{name}/blobs/")}  # listed before the versions that name them
    blobs = {match[1] for key in keys if (match := re.fullmatch(rf"{re.escape(name)}/blobs/({SHA256})", key))}
    trash = [entry for entry in store.entries(f"{name}/trash/") if re.fullmatch(rf"{SHA256}\.\w+", _last(entry))]
    needed = _needed(registry, name)
    for entry in trash:
        sha256 = _last(entry).partition(".")[0]
        if entry.modified < before and (sha256 not in needed or (sha256 in blobs and _whole(registry, name, sha256))):
            cleared.removed += 1
            cleared.removed_bytes += entry.size
            if not dry_run:
                store.delete(entry.key)
    trashed = blobs - needed
    if not trashed and not trash:
        return
    for sha256 in sorted(trashed):
        if dry_run or _to_trash(registry, name, sha256, say):
            cleared.trashed += 1
    missing = _needed(registry, name) - (blobs - trashed)  # by versions of meanwhile too
    cleared.restored += len(missing & {_last(entry).partition(".")[0] for entry in trash})
    for sha256 in sorted(missing) if not dry_run else ():
        with contextlib.suppress(NotFoundError):  # damaged, as `verify` tells, or stored anew meanwhile
            put_blob(store, blob_key(name, sha256), fetch_trashed(store, name, sha256))


def _whole(registry: Registry, name: str, sha256: str) -> bool:
    """Whether a blob is in its place and undamaged, so that its copy in the trash can go."""
    try:
        return is_of(registry.store.get(blob_key(name, sha256)), sha256)
    except NotFoundError:
        return False


def _to_trash(registry: Registry, name: str, sha256: str, say: Callable[[str], None]) -> bool:
    """Whether it went. To a key of its own each time: who removes an old one by its listing must not hit a new one.

    One who was asleep for long does not remove the blob: what is in the trash may be gone by then.
    """
    trash_key = f"{name}/trash/{sha256}.{secrets.token_hex(8)}"
    try:
        registry.store.move(blob_key(name, sha256), trash_key, within_s=PUBLISH_S)
    except UnavailableError:
        raise
    except NotFoundError:  # another gc was faster
        return False
    except RegistryError as error:  # a disk so full that it has no space for a name
        say(f"{name}: {sha256[:12]}… stays: {error}")
        return False
    return True


def _sweep(registry: Registry, name: str, before: float, cleared: Cleared, say: Callable[[str], None]) -> None:
    try:
        cleared.unfinished += registry.store.sweep(f"{name}/", before)
    except UnavailableError:
        raise
    except RegistryError as error:  # rights that others need not have, or a server that knows no uploads
        say(f"{name}: unfinished writes stay: {error}")


def _last(entry: Entry) -> str:
    return entry.key.rpartition("/")[2]


def _needed(registry: Registry, name: str) -> set[str]:
    """What the versions of a model name. Raises IntegrityError if one cannot be read."""
    needed: set[str] = set()
    for listed in registry.versions(name):
        if listed.version is None:
            raise IntegrityError(f"{listed.problem}; what it needs is not known")
        needed |= {blob.sha256 for blob in listed.version.blobs.values()}
    return needed
