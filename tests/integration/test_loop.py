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
from cellnet.sample import write_sample
from serve.app import ServeArgs, serve_forever
from serve.haproxy import free_port
from tests import loop

pytestmark = [
    pytest.mark.ray,
    pytest.mark.whole,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt-get install chromium)"),
]
STORED = Path(__file__).parents[1] / "data" / "loop"
"""A tiny counter that learned from the frames that the bank begins with: what `cellnet registry export` wrote, without
its report."""
QUICK = ("folds=0", "epochs=6", "threads=1", "augment.shares=[1.0]", "augment.shifts=0")


class Inside(loop.Lab):
    """Its commands are run in this process, and join its Ray."""

    def cellnet(self, *words: object, ends: Sequence[int] = (0,)) -> str:
        self.step(" ".join(map(str, words)))
        said, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            status = main([*map(str, words), "--endpoint-url", self.environment["AWS_ENDPOINT_URL_S3"]])
        assert status in ends, told.getvalue()
        return said.getvalue()

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        places = {"registry": loop.REGISTRY, "bank": loop.BANK, "endpoint_url": self.environment["AWS_ENDPOINT_URL_S3"]}
        args = ServeArgs(**places, replicas=1, threads=1, poll_s=0.2)
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
    old = write_sample(tmp_path / "old", wells_per_lineage=4, lineages=loop.LINEAGES, size_px=loop.SIZE_PX)
    lab.cellnet("bank", "import", old, loop.BANK)
    lab.cellnet("registry", "publish", STORED, "--name", "regressor")
    lab.cellnet("registry", "promote", "regressor@1", "champion", "--force", "--reason", "the first")
    train = [word for one in QUICK for word in ("--set", one)]
    promote = ("--force", "--reason", "four wells of a holdout show nothing")
    told = loop.go_round(lab, wells=12, corrected=4, train=train, promote=promote)
    assert (told["kept_aside"], told["people_said_otherwise"]["n"]) == (8, 4)
    assert told["mae_after"] < told["mae_before"]
    for name in ("1-plate.png", "2-first.png", "3-corrected.png", "4-after.png", "5-next.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
