"""The model registry: objects only, in a folder or in S3.

    NAME/blobs/SHA256                          weights, exports, report: written first, addressed by content
    NAME/versions/000007.json                  the commit point: created only if absent
    NAME/aliases/champion/000012.json          an append-only log: created only if absent; the newest is the alias
    NAME/trash/SHA256.TOKEN                    blobs that no version needed when `upkeep.gc` last looked

A crash leaves unreferenced blobs at worst. A reference is `name@7` or `name:alias`; a tag is an alias that does not
move. A record of a version may be signed (`cellnet.registry.signing`), and then covers its blobs by their sha256.
"""

import functools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from cellnet.config.loading import read_record, record_bytes
from cellnet.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    LaterError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)
from cellnet.registry import signing
from cellnet.registry.blobs import fetch_blob, put_blobs
from cellnet.registry.cache import Cache, kept
from cellnet.registry.records import (
    NAME,
    RECORD_BYTES,
    AliasMove,
    Card,
    Evidence,
    ModelVersion,
    Origin,
    check_name,
    parse_ref,
)
from cellnet.store.log import LAST, Log
from cellnet.store.objects import Store, together
from cellnet.store.place import PlaceLike, open_store

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

PUBLISH_S: Final = 21_600
"""A publisher who takes longer looks after the blobs once more before the commit, since `gc` may have moved them."""

ONCE_AMONG: Final = 256
"""Of so many versions of a model more are not published between the end of a training and its next start."""


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
        self._logs: dict[str, Log] = {}

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
        versions = self._versions(name)
        started, blobs = time.time(), put_blobs(self.store, name, files)
        for number in range(versions.newest() + 1, LAST + 1):
            while time.time() - started > PUBLISH_S:
                started, blobs = time.time(), put_blobs(self.store, name, files)
            version = ModelVersion(name=name, number=number, blobs=blobs, card=card, origin=origin, id=_new_id())
            record = record_bytes(version)
            data = signing.sign(record, self.signer) if self.signer else record
            if versions.append(number, data):
                return version
        raise RegistryError(f"{name} has {LAST:,} versions, and no number is left: {_no_number(versions)}")

    def check_publish(self, name: str) -> None:
        """Raise ConfigError where nothing can be published under a name: to be asked before the work, too."""
        check_name(name)
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
            number = kept(
                self.cache,
                f"{name}/aliases/{alias}",
                lambda: self._newest_move(name, alias),
                lambda data: read_record(AliasMove, data, f"the last move of {name}:{alias}").number,
            )
        assert number is not None
        wanted = number
        return kept(
            self.cache,
            self._versions(name).key(number),
            lambda: self._stored(name, wanted),
            lambda data: self._version(name, wanted, data),
        )

    def published_once(self, name: str, once: str) -> ModelVersion | None:
        """The version of a model whose training was called so; None where none of the newest `ONCE_AMONG` was."""
        last = self._versions(name).newest()
        numbers = range(last, max(last - ONCE_AMONG, 0), -1)
        looked_at = (version for version, _ in together(self._looked_at(name), numbers))
        return next((version for version in looked_at if version and version.card.once == once), None)

    def record(self, version: ModelVersion) -> bytes:
        """The record of a version as it is stored, in its envelope if it is signed."""
        return self._versions(version.name).read(version.number)

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
            data = fetch_blob(self.store, version, role)
            if self.cache:
                self.cache.keep_blob(blob.sha256, data)
        return data

    def names(self) -> list[str]:
        """The models."""
        return [name for name in self.store.folders("") if NAME.fullmatch(name) and self._versions(name).newest()]

    def check_there(self, name: str) -> None:
        """Raise NotFoundError, naming what there is, for a model that has no version."""
        if not self._versions(name).newest():
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
            last = self._versions(model).newest()
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
        check_name(alias)
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
        check_name(tag)
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

        Where that move is damaged, at the version of the last one that can be read; the damaged ones are then settled.
        Raises ConfigError where there is none, and ConflictError when it was moved meanwhile.
        """
        moves = self._moves(name, alias)
        newest = moves.newest()
        if not newest:
            raise self._no_alias(name, alias)
        last, damaged = self._last_whole(moves, newest)
        if last is None:
            raise ConfigError(
                f"no move of {name}:{alias} can be read, so nothing is known to go back to; remove "
                f"{moves.prefix}/ from {self.store.uri}, then promote again"
            )
        back = last.number if damaged else last.previous
        if back is None:
            raise ConfigError(f"{name}:{alias} has pointed at nothing but {name}@{last.number}; nothing to go back to")
        from_ = f"move {newest}, which is damaged" if damaged else f"{name}@{last.number}"
        because = f"rollback from {from_}" + (f": {reason}" if reason else "")
        version = self.resolve(f"{name}@{back}")
        return self._move(version, alias, last, reason=because, fixed=bool(damaged) and last.fixed, settles=damaged)

    def history(self, name: str, alias: str) -> list[AliasMove]:
        """Every move of an alias, the oldest first, but for damaged ones that a later move settled."""
        moves, whole, settled = self._moves(name, alias), list[AliasMove](), set[int]()
        for number in reversed(list(moves.numbers())):
            if number not in settled:
                whole.append(_read_move(moves, number))
                settled.update(whole[-1].settles)
        return whole[::-1]

    def pointing(self, name: str, alias: str) -> AliasMove | None:
        """The last move of an alias; None of one that points at nothing. Raises IntegrityError for a damaged one."""
        moves = self._moves(name, alias)
        number = moves.newest()
        return _read_last(moves, number) if number else None

    def moved(self, name: str, alias: str) -> bool:
        """Whether an alias has moved since this registry last read where it points: one read, and no list."""
        return self._moves(name, alias).goes_on()

    def parse(self, data: bytes, what: str) -> ModelVersion:
        """The version of a record, which may be signed. Raises IntegrityError; and UntrustedError where signatures are
        required and no trusted key signed."""
        record, envelope = signing.opened(data, what)
        if self.trusted:
            signing.signed_by(envelope, self.trusted, what)
        return read_record(ModelVersion, record, what)

    def _versions(self, name: str) -> Log:
        """The log of a model's versions."""
        return self._log(f"{name}/versions")

    def _moves(self, name: str, alias: str) -> Log:
        """The log of an alias."""
        return self._log(f"{name}/aliases/{alias}")

    def _log(self, prefix: str) -> Log:
        """A log, which remembers how far it was seen to go."""
        return self._logs.setdefault(prefix, Log(self.store, prefix, limit=RECORD_BYTES))

    def _stored(self, name: str, number: int) -> bytes:
        try:
            return self._versions(name).read(number)
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

    def _last_whole(self, moves: Log, newest: int) -> tuple[AliasMove | None, tuple[int, ...]]:
        """The last move that can be read, if one can, and the numbers of those after it."""
        damaged = list[int]()
        for number in range(newest, 0, -1):
            try:
                return _read_move(moves, number), tuple(sorted(damaged))
            except LaterError:
                raise
            except (IntegrityError, NotFoundError):
                damaged.append(number)
        return None, tuple(sorted(damaged))

    def _move(
        self,
        version: ModelVersion,
        alias: str,
        last: AliasMove | None,
        *,
        reason: str,
        evidence: Evidence | None = None,
        fixed: bool = False,
        settles: tuple[int, ...] = (),
    ) -> AliasMove:
        moves = self._moves(version.name, alias)
        move = AliasMove(
            name=version.name,
            alias=alias,
            entry=max([last.entry if last else 0, *settles]) + 1,
            number=version.number,
            previous=last.number if last else None,
            reason=reason,
            moved=datetime.now(UTC).isoformat(timespec="milliseconds"),
            evidence=evidence,
            fixed=fixed,
            id=_new_id(),
            settles=settles,
        )
        if move.entry > LAST:
            raise RegistryError(
                f"{move.name}:{alias} has moved {LAST:,} times, and no number is left: {_no_number(moves)}"
            )
        if not moves.append(move.entry, record_bytes(move)):
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
        moves = self._moves(name, alias)
        number = moves.newest()
        if not number:
            raise self._no_alias(name, alias)
        return record_bytes(_read_last(moves, number))

    def _no_alias(self, name: str, alias: str) -> NotFoundError:
        return NotFoundError(f"the registry {self.store.uri} has no {name}:{alias}; {self._offer(name)}")

    def _offer(self, name: str) -> str:
        """What the registry does have, for the reader of an error."""
        last = self._versions(name).newest()
        if last:
            aliases = self.aliases(name)
            return f"it has {name}@1{f'…{last}' * (last > 1)}" + (
                f" and {name}:{', '.join(aliases)}" if aliases else ""
            )
        names = self.names()
        if names:
            return f"it has the models {', '.join(names)}"
        return "it is empty; publish a model with cellnet train"


def _read_move(moves: Log, number: int) -> AliasMove:
    """A move of an alias by its number. Raises IntegrityError for one that says it is another."""
    key = moves.key(number)
    move = read_record(AliasMove, moves.read(number), f"{key} in {moves.store.uri}")
    if f"{move.name}/aliases/{move.alias}" != moves.prefix or move.entry != number:
        raise IntegrityError(f"{key} in {moves.store.uri} says it is move {move.entry} of {move.name}:{move.alias}")
    return move


def _read_last(moves: Log, number: int) -> AliasMove:
    """The last move of an alias. Raises IntegrityError, naming the way out, for one that is damaged."""
    try:
        return _read_move(moves, number)
    except LaterError:
        raise
    except IntegrityError as error:
        name, _, alias = moves.prefix.split("/")
        raise IntegrityError(
            f"{error}; cellnet registry rollback {name} {alias} goes back to the move before"
        ) from error


def _no_number(log: Log) -> str:
    """What to do where a log is full."""
    return f"take another name, or remove {log.key(LAST)} from {log.store.uri} if somebody left it there"


def _moved_meanwhile(winner: AliasMove) -> ConflictError:
    return ConflictError(
        f"{winner.name}:{winner.alias} was moved to {winner.name}@{winner.number} in the meantime; "
        "look at it, then promote again if you still want to"
    )


def _new_id() -> str:
    return uuid.uuid4().hex
