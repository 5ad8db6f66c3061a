"""The model registry: objects only, in a folder or in S3.

    NAME/blobs/SHA256                          weights, exports, report: written first, addressed by content
    NAME/versions/000007.json                  the commit point: created only if absent
    NAME/aliases/champion/000012.json          an append-only log: created only if absent; the newest is the alias
    NAME/trash/SHA256.TOKEN                    blobs that no version needed when `upkeep.gc` last looked

A crash leaves unreferenced blobs at worst. A reference is `name@7` or `name:alias`; a tag is an alias that does not
move. A record of a version may be signed (`cellnet.registry.signing`), and then covers its blobs by their sha256.
"""

import contextlib
import functools
import hashlib
import itertools
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from cellnet.errors import ConfigError, ConflictError, IntegrityError, NotFoundError, RegistryError, UnavailableError
from cellnet.registry import signing
from cellnet.registry.cache import Cache
from cellnet.store.objects import MOST_BYTES, THREADS, Store
from cellnet.store.place import PlaceLike, open_store

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner
from cellnet.registry.records import (
    NAME,
    RECORD_BYTES,
    AliasMove,
    Blob,
    Card,
    Evidence,
    ModelVersion,
    Origin,
    parse_ref,
    parsed,
)

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
PAGE: Final = 1000
"""Keys that S3 lists in one request."""
LAST: Final = 999_999
"""Number of a model's versions, and of an alias's moves: six digits keep keys in order."""
PUBLISH_S: Final = 21_600
"""A publisher who takes longer looks after the blobs once more before the commit, since `gc` may have moved them."""


class Listed(NamedTuple):
    """A row of a list of versions."""

    ref: str
    version: ModelVersion | None
    """None where its record cannot be used."""
    problem: str | None
    """Why."""
    aliases: list[str]
    """Those that point at it, tags among them."""


class Registry:
    """Models by name, their versions and aliases."""

    def __init__(
        self,
        store: Store,
        *,
        trusted: Iterable[str] = (),
        signer: "CryptoSigner | None" = None,
        cache: Cache | None = None,
    ) -> None:
        self.store = store
        self.trusted = list(trusted)
        """Public keys in PEM; where there are any, versions that none of them signed are refused."""
        self.signer = signer
        self.cache = cache
        self._last: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "signer": None}  # private keys do not travel between processes

    @classmethod
    def open(cls, place: PlaceLike, *, trusted: Iterable[str] = (), signer: "CryptoSigner | None" = None) -> Self:
        """The registry at a place, a folder or `s3://bucket/prefix`; an empty one is an empty registry."""
        store = open_store(place)
        return cls(store, trusted=trusted, signer=signer, cache=Cache.of(store))

    def fresh(self) -> Self:
        """The same registry, asked anew: without answers of before, kept on disk or as hints of how far its logs go."""
        return type(self)(self.store, trusted=self.trusted, signer=self.signer)

    def publish(self, name: str, files: dict[str, bytes], card: Card, *, origin: Origin | None = None) -> ModelVersion:
        """Store the blobs, then commit the next version; readers see all of it or none.

        Raises ConfigError for a name that cannot be, and where signatures are required and it cannot sign.
        """
        self.check_publish(name)
        started, blobs = time.time(), self._put_blobs(name, files)
        for number in range(self._newest(f"{name}/versions/") + 1, LAST + 1):
            while time.time() - started > PUBLISH_S:
                started, blobs = time.time(), self._put_blobs(name, files)
            version = ModelVersion(name=name, number=number, blobs=blobs, card=card, origin=origin, id=_new_id())
            record = version.model_dump_json(indent=1).encode()
            data = signing.sign(record, self.signer) if self.signer else record
            if self.store.create(_version_key(name, number), data):
                return version
        raise RegistryError(f"{name} has {LAST:,} versions, and no number is left; publish under another name")

    def check_publish(self, name: str) -> None:
        """Raise ConfigError where nothing can be published under a name: to be asked before the work, too."""
        _check_name(name)
        if self.trusted and not self.signer:
            raise ConfigError("only signed versions are trusted here (--trusted-keys), so give --signing-key too")
        if self.trusted and self.signer and not signing.trusts(self.trusted, self.signer):
            raise ConfigError("the signing key is not among the trusted keys, so nobody here could use what it signs")

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `name@7` or `name:alias` means; of a store that is down, as it was when last asked.

        Raises NotFoundError, naming what there is, IntegrityError and UntrustedError.
        """
        name, number, alias = parse_ref(ref)
        if alias is not None:
            number = self._kept(
                f"{name}/aliases/{alias}",
                lambda: self._newest_move(name, alias),
                lambda data: self._move_of(name, alias, data).number,
            )
        assert number is not None
        wanted = number
        return self._kept(
            _version_key(name, number),
            lambda: self._stored(name, wanted),
            lambda data: self._version(name, wanted, data),
        )

    def record(self, version: ModelVersion) -> bytes:
        """The record of a version as it is stored, in its envelope if it is signed."""
        return self.store.get(_version_key(version.name, version.number), limit=RECORD_BYTES)

    def signature(self, version: ModelVersion) -> str:
        """Who signed a version, and whether that was checked, for a person."""
        data = self.record(version)
        _, envelope = signing.opened(data, version.ref)
        if self._version(version.name, version.number, data) != version:
            raise IntegrityError(f"{version.ref} in {self.store.uri} was changed while it was read")
        if envelope is None:
            return "not signed"
        if self.trusted:
            return f"signed by key {signing.signed_by(envelope, self.trusted, version.ref)[:12]}…, which is trusted"
        keys = " and ".join(f"{key[:12]}…" for key in envelope.signatures) or "nobody"
        return f"says that it is signed by key {keys}; --trusted-keys checks it"

    def read(self, version: ModelVersion, role: str) -> bytes:
        """The bytes of one of a version's blobs. Raises IntegrityError unless their sha256 is right."""
        blob = version.blobs.get(role)
        if blob is None:
            raise IntegrityError(f"{version.ref} holds no {role}; it holds {', '.join(version.blobs) or 'nothing'}")
        data = self.cache.blob(blob.sha256) if self.cache else None
        if data is None:
            data = self.fetch(version, role)
            if self.cache:
                self.cache.keep_blob(blob.sha256, data)
        return data

    def fetch(self, version: ModelVersion, role: str) -> bytes:
        """The same, from the store itself, or from its trash."""
        blob, key = version.blobs[role], f"{version.name}/blobs/{version.blobs[role].sha256}"
        try:
            data = self.store.get(key, limit=blob.size)
            if len(data) == blob.size and is_of(data, blob.sha256):
                return data
            problem: RegistryError = IntegrityError(
                f"{role} of {version.ref} is damaged: its sha256 is not {blob.sha256[:12]}…; "
                "publish the same files again, or serve another version"
            )
        except (IntegrityError, NotFoundError) as error:
            problem = error
        try:
            return self.from_trash(version.name, blob.sha256, limit=blob.size)
        except NotFoundError:
            raise problem from None

    def from_trash(self, name: str, sha256: str, *, limit: int = MOST_BYTES) -> bytes:
        """A blob that `upkeep.gc` put away. Raises NotFoundError where no copy is whole."""
        for entry in self.store.entries(f"{name}/trash/{sha256}."):
            with contextlib.suppress(NotFoundError, IntegrityError):  # removed meanwhile, or too large
                data = self.store.get(entry.key, limit=limit)
                if is_of(data, sha256):
                    return data
        raise NotFoundError(f"{self.store.uri} has no {name}/trash/{sha256}")

    def names(self) -> list[str]:
        """The models."""
        return [name for name in self.store.folders("") if NAME.fullmatch(name) and self._newest(f"{name}/versions/")]

    def check_there(self, name: str) -> None:
        """Raise NotFoundError, naming what there is, for a model that has no version."""
        if not self._newest(f"{name}/versions/"):
            raise NotFoundError(f"the registry {self.store.uri} has no {name}; {self._offer(name)}")

    def aliases(self, name: str) -> list[str]:
        """A model's aliases, tags among them."""
        return [alias for alias in self.store.folders(f"{name}/aliases/") if NAME.fullmatch(alias)]

    def aliases_of(self, version: ModelVersion) -> list[str]:
        """Those that point at a version."""
        return self._pointing(version.name).get(version.number, [])

    def versions(self, name: str | None = None, *, newest: int | None = None) -> Iterator[Listed]:
        """The versions of a model, or of all, with the aliases that point at them; by name, the newest first.

        `newest`: so many of each model, whatever the number of all; the requests are bounded by it.
        """
        for model in [name] if name else self.names():
            pointing = self._pointing(model)
            last = self._newest(f"{model}/versions/")
            numbers = range(last, max(last - newest, 0) if newest else 0, -1)
            for number, (version, problem) in zip(numbers, together(self._looked_at(model), numbers), strict=True):
                yield Listed(f"{model}@{number}", version, problem, pointing.get(number, []))

    def promote(
        self, ref: str, alias: str, *, reason: str = "", evidence: Evidence | None = None, after: int | None = None
    ) -> AliasMove:
        """Point an alias at a version, on the `evidence` of a comparison with what it points at.

        `after`: only if this is still its last move, 0 for none. Raises ConflictError, naming the winner, when another
        promoter was first, and ConfigError for a tag.
        """
        _check_name(alias)
        version = self.resolve(ref)
        last = self.pointing(version.name, alias)
        if last and last.fixed:
            raise ConfigError(f"{last.name}:{alias} is a tag of {last.name}@{last.number}, and does not move")
        if last and (last.entry != after if after is not None else evidence and last.number != evidence.champion):
            raise _moved_meanwhile(last)
        if last and last.number == version.number:
            return last
        return self._move(version, alias, last, reason=reason, evidence=evidence)

    def tag(self, ref: str, tag: str, *, reason: str = "") -> AliasMove:
        """Give a version a name that stays with it. Raises ConflictError where another version has it."""
        _check_name(tag)
        version = self.resolve(ref)
        last = self.pointing(version.name, tag)
        if last is None:
            return self._move(version, tag, None, reason=reason, fixed=True)
        if not last.fixed or last.number != version.number:
            kind = "a tag" if last.fixed else "an alias"
            raise ConflictError(f"{last.name}:{tag} is {kind} of {last.name}@{last.number}; choose another name")
        return last

    def rollback(self, name: str, alias: str, *, reason: str = "") -> AliasMove:
        """Point an alias back at the version that it pointed at before its last move.

        Raises ConfigError where there is none, and ConflictError when it was moved meanwhile.
        """
        last = self.pointing(name, alias)
        if last is None:
            raise self._no_alias(name, alias)
        if last.previous is None:
            raise ConfigError(f"{name}:{alias} has pointed at nothing but {name}@{last.number}; nothing to go back to")
        because = f"rollback from {name}@{last.number}" + (f": {reason}" if reason else "")
        return self._move(self.resolve(f"{name}@{last.previous}"), alias, last, reason=because)

    def history(self, name: str, alias: str) -> list[AliasMove]:
        """Every move of an alias, the oldest first."""
        numbers = self._numbers(f"{name}/aliases/{alias}/")
        return list(together(self._read_move, (_move_key(name, alias, number) for number in numbers)))

    def pointing(self, name: str, alias: str) -> AliasMove | None:
        """The last move of an alias; None of one that points at nothing."""
        number = self._newest(f"{name}/aliases/{alias}/")
        return self._read_move(_move_key(name, alias, number)) if number else None

    def parse(self, data: bytes, what: str) -> ModelVersion:
        """The version of a record, which may be signed. Raises IntegrityError; and UntrustedError where signatures are
        required and no trusted key signed."""
        record, envelope = signing.opened(data, what)
        if self.trusted:
            signing.signed_by(envelope, self.trusted, what)
        return parsed(ModelVersion, record, what)

    def _stored(self, name: str, number: int) -> bytes:
        try:
            return self.store.get(_version_key(name, number), limit=RECORD_BYTES)
        except NotFoundError as error:
            ref = f"{name}@{number}"
            raise NotFoundError(f"the registry {self.store.uri} has no {ref}; {self._offer(name)}") from error

    def _version(self, name: str, number: int, data: bytes) -> ModelVersion:
        ref = f"{name}@{number}"
        version = self.parse(data, f"{ref} in {self.store.uri}")
        if version.ref != ref:
            raise IntegrityError(f"{ref} in {self.store.uri} says it is {version.ref}")
        return version

    def _looked_at(self, name: str) -> Callable[[int], tuple[ModelVersion | None, str | None]]:
        """How to get a version of a model by its number, or what is wrong with it."""

        def look(number: int) -> tuple[ModelVersion | None, str | None]:
            try:
                return self._version(name, number, self._stored(name, number)), None
            except UnavailableError:
                raise
            except RegistryError as error:
                return None, str(error)

        return look

    def _kept(self, key: str, ask: Callable[[], bytes], read: Callable[[bytes], Result]) -> Result:
        """What the store's answer means; where it is down, what its last good one did."""
        try:
            data = ask()
        except UnavailableError as error:
            kept = self.cache.answer(key) if self.cache else None
            if kept is None:
                raise
            log.warning("%s; going on with what %s was when last asked", error, key)
            return read(kept)
        result = read(data)
        if self.cache:
            self.cache.keep_answer(key, data)
        return result

    def _move_of(self, name: str, alias: str, data: bytes) -> AliasMove:
        ref = f"{name}:{alias}"
        move = parsed(AliasMove, data, f"the last move of {ref} in {self.store.uri}")
        if (move.name, move.alias) != (name, alias):
            raise IntegrityError(f"the last move of {ref} in {self.store.uri} is one of {move.name}:{move.alias}")
        return move

    def _put_blobs(self, name: str, files: dict[str, bytes]) -> dict[str, Blob]:
        blobs = {role: Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for role, data in files.items()}
        for role, data in files.items():
            key = f"{name}/blobs/{blobs[role].sha256}"
            if not self.store.create(key, data) and not self._is_whole(key, data):
                self.store.put(key, data)  # the same content as ever, so that it cannot be wrong
        return blobs

    def _is_whole(self, key: str, data: bytes) -> bool:
        try:
            return self.store.get(key, limit=len(data)) == data
        except (IntegrityError, NotFoundError):
            return False

    def _move(
        self,
        version: ModelVersion,
        alias: str,
        last: AliasMove | None,
        *,
        reason: str,
        evidence: Evidence | None = None,
        fixed: bool = False,
    ) -> AliasMove:
        move = AliasMove(
            name=version.name,
            alias=alias,
            entry=last.entry + 1 if last else 1,
            number=version.number,
            previous=last.number if last else None,
            reason=reason,
            moved=datetime.now(UTC).isoformat(timespec="milliseconds"),
            evidence=evidence,
            fixed=fixed,
            id=_new_id(),
        )
        if move.entry > LAST:
            raise RegistryError(f"{move.name}:{alias} has moved {LAST:,} times, and no number is left; take another")
        if not self.store.create(_move_key(move.name, alias, move.entry), move.model_dump_json(indent=1).encode()):
            winner = self.pointing(version.name, alias)
            assert winner is not None
            raise _moved_meanwhile(winner)
        return move

    def _pointing(self, name: str) -> dict[int, list[str]]:
        """The aliases of a model by the number that they point at."""
        aliases, pointing = self.aliases(name), dict[int, list[str]]()
        for alias, move in zip(aliases, together(functools.partial(self._move_now, name), aliases), strict=True):
            pointing.setdefault(move.number if move else 0, []).append(alias)
        return pointing

    def _move_now(self, name: str, alias: str) -> AliasMove | None:
        """The last move of an alias, None also of one whose log is damaged, which `upkeep.verify` tells."""
        try:
            return self.pointing(name, alias)
        except (IntegrityError, NotFoundError):
            return None

    def _newest_move(self, name: str, alias: str) -> bytes:
        number = self._newest(f"{name}/aliases/{alias}/")
        if not number:
            raise self._no_alias(name, alias)
        return self.store.get(_move_key(name, alias, number), limit=RECORD_BYTES)

    def _read_move(self, key: str) -> AliasMove:
        move = parsed(AliasMove, self.store.get(key, limit=RECORD_BYTES), f"{key} in {self.store.uri}")
        if _move_key(move.name, move.alias, move.entry) != key:
            raise IntegrityError(f"{key} in {self.store.uri} says it is another move")
        return move

    def _newest(self, prefix: str) -> int:
        """The highest number below a prefix, 0 where there is none.

        In leaps that double while there is more and halve when there is not: of 10,000 in ten requests, of a million in
        twenty, and from where it was last seen on in one.
        """
        last, leap, growing = self._last.get(prefix, 0), 0, True
        while True:
            after = f"{prefix}{min(last + leap, LAST):06d}.json"
            page = list(itertools.islice(self._numbers(prefix, after=after), PAGE))
            if page:
                last = page[-1]
                leap = max(2 * leap, PAGE) if growing else leap // 2
            growing = growing and bool(page)
            if len(page) < PAGE and (page or not leap):
                self._last[prefix] = last
                return last
            if not page:
                leap = leap // 2 if leap >= 2 * PAGE else 0

    def _numbers(self, prefix: str, *, after: str = "") -> Iterator[int]:
        """Of the records below a prefix, in order; what else lies there is nobody's."""
        stems = (key.removeprefix(prefix) for key in self.store.keys(prefix, after=after))
        return (int(found[1]) for stem in stems if (found := re.fullmatch(r"([0-9]{6})\.json", stem)))

    def _no_alias(self, name: str, alias: str) -> NotFoundError:
        return NotFoundError(f"the registry {self.store.uri} has no {name}:{alias}; {self._offer(name)}")

    def _offer(self, name: str) -> str:
        """What the registry does have, for the reader of an error."""
        last = self._newest(f"{name}/versions/")
        if last:
            aliases = self.aliases(name)
            return f"it has {name}@1…{last}" + (f" and {name}:{', '.join(aliases)}" if aliases else "")
        names = self.names()
        if names:
            return f"it has the models {', '.join(names)}"
        return "it is empty; publish a model with cellnet train"


def together(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` with several at a time, in order; what is asked ahead is bounded."""
    pool, rest = ThreadPoolExecutor(THREADS), iter(items)
    try:
        while batch := list(itertools.islice(rest, 16 * THREADS)):
            yield from pool.map(function, batch)
    finally:
        pool.shutdown(cancel_futures=True)  # of a store that is down, nothing more is asked


def _moved_meanwhile(winner: AliasMove) -> ConflictError:
    return ConflictError(
        f"{winner.name}:{winner.alias} was moved to {winner.name}@{winner.number} in the meantime; "
        "look at it, then promote again if you still want to"
    )


def is_of(data: bytes, sha256: str) -> bool:
    """Whether these are the bytes of that address."""
    return hashlib.sha256(data).hexdigest() == sha256


def _new_id() -> str:
    return uuid.uuid4().hex


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name; use up to 64 letters, digits, '.', '_' and '-'")


def _version_key(name: str, number: int) -> str:
    return f"{name}/versions/{number:06d}.json"


def _move_key(name: str, alias: str, entry: int) -> str:
    return f"{name}/aliases/{alias}/{entry:06d}.json"
