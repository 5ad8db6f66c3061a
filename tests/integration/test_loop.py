"""People correct, cellnet learns: `make loop` in small, with stored weights, in the tests' own Ray and bucket."""

import contextlib
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ray import serve

pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
from cellnet.cli import main
from cellnet.places import Places
from cellnet.registry.exchange import export_version
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from pipelines.ingest import ingest
from pipelines.train import train
from serve.app import ServeArgs, serve_forever
from serve.haproxy import free_port
from tests import loop
from tests.factories import quick_config

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt-get install chromium)"),
]
STORED = Path(__file__).parents[1] / "data" / "loop"
"""A tiny counter, trained on drawn frames; made by `store`."""
QUICK = ("folds=0", "epochs=6", "threads=1")


def store(folder: Path) -> None:
    """Train the counter anew, `python -c "from tests.integration.test_loop import store; ..."`, and write it down."""
    places = Places(bank=place_of(folder / "bank"), registry=place_of(folder / "registry"))
    ingest(write_sample(folder / "old", wells_per_lineage=6, lineages=loop.LINEAGES, size_px=loop.SIZE_PX), places)
    version = train(places, quick_config("count", epochs=30, threads=1))
    shutil.rmtree(STORED, ignore_errors=True)
    export_version(places.open_registry(), version.ref, STORED)


class Inside(loop.Lab):
    """Its commands are run in this process, and join its Ray."""

    def cellnet(self, *words: object, ends: Sequence[int] = (0,)) -> str:
        said, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            status = main([str(word) for word in words])
        assert status in ends, told.getvalue()
        return said.getvalue()

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        args = ServeArgs(registry=loop.REGISTRY, bank=loop.BANK, replicas=1, threads=1, poll_s=0.2)
        try:
            yield f"{serve_forever(args, port=free_port(), block=False)}/"
        finally:
            serve.shutdown()


def test_corrections_of_a_plate_make_the_next_version_better_on_frames_kept_aside(
    ray_started: None, moto: str, credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
    monkeypatch.setenv("CELLNET_REGISTRY", loop.REGISTRY)
    lab = Inside(tmp_path, moto)
    lab.cellnet("registry", "publish", STORED, "--name", "regressor")
    lab.cellnet("registry", "promote", "regressor@1", "champion", "--force", "--reason", "the first")
    old = write_sample(tmp_path / "old", wells_per_lineage=2, lineages=loop.LINEAGES, size_px=loop.SIZE_PX)
    lab.cellnet("bank", "import", old, loop.BANK)
    told = loop.go_round(lab, wells=12, corrected=4, tune=[word for one in QUICK for word in ("--set", one)])
    assert (told["kept_aside"], told["people_said_otherwise"]["n"]) == (8, 4)
    assert told["mae_after"] < told["mae_before"]
    for name in ("1-plate.png", "2-corrected.png", "3-after.png", "4-next.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
