"""People correct, cellnet learns: the whole way, in a browser and by commands. `make loop`, or

    python tests/loop.py OUT [--wells 96] [--corrected 10]

A bank and a registry are in a bucket of an S3 server on this machine. A counter is trained on drawn frames of one
microscope; a plate of 96 wells, recorded by another one that it never saw, is uploaded in Chromium; the ten frames that
the page proposes are corrected there, half by mouse and half by keys, and saved in the bank; what to label next is
asked; a version is fine-tuned from the champion and promoted; and the plate is uploaded again. The frames that were not
corrected tell how much it learned. The drawings are no cells: how much real corrections are worth says
tests/benchmarks/relearning.py.

OUT gets the plate, pictures of the page, `next.html` and `loop.json` with the figures.
"""

import argparse
import base64
import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import urlopen

import cv2
import numpy as np
from numpy.typing import NDArray
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.wait import WebDriverWait

from cellnet.images.wells import group_of, named_well
from cellnet.sample import draw_frame, draw_well, write_sample
from tests.benchmarks.instrument import Instrument, recorded_by
from tests.integration.conftest import KEYS, OwnCluster
from tests.integration.servers import PersistentServer

LINEAGES: Final = ("A549", "THP1", "3T3")
FLAGS: Final = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars --window-size=1280,1000"
)
PLATE: Final = "plate7"
OTHER: Final = Instrument(gain=0.6, blur_px=0.7, shading=0.4, noise=2)
"""The microscope of the plate. It is in focus: else its wells would have no value."""
SIZE_PX: Final = 400
NEAR_PX: Final = 12.0
"""Pixels of the frame within which a person takes a ring for that of a cell."""
WAIT_S: Final = 300
BANK, REGISTRY = "s3://lab/bank", "s3://lab/models"
"""Where they lie."""

Points = NDArray[np.float64]
"""(N, 2): x and y of cells, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--wells", type=int, default=96, help="of the plate (%(default)s)")
    parser.add_argument("--corrected", type=int, default=10, help="frames, half by mouse, half by keys (%(default)s)")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    if out.exists() and not (out / "s3").exists() and any(out.iterdir()):
        sys.exit(f"loop: {out} is not an earlier loop's folder; move it away first")
    shutil.rmtree(out, ignore_errors=True)
    (out / "s3").mkdir(parents=True)
    with PersistentServer(out / "s3") as s3:
        lab = Lab(out, s3.address)
        manifest = write_sample(out / "old", wells_per_lineage=8, lineages=LINEAGES, size_px=SIZE_PX)
        lab.cellnet("bank", "import", manifest, BANK)
        lab.cellnet("train", BANK, "--task", "count", "--set", "model.frozen=true")
        lab.cellnet("registry", "promote", "regressor@1", "champion")
        told = go_round(lab, wells=arguments.wells, corrected=arguments.corrected)
    (out / "loop.json").write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))
    if told["mae_after"] >= told["mae_before"]:
        sys.exit("loop: the corrections did not make it better")


class Lab:
    """What everybody in it shares: a bucket, and commands as they are typed."""

    def __init__(self, out: Path, s3: str, **environment: str) -> None:
        self.out = out
        self.clock = time.monotonic()
        self.environment = {
            **os.environ,
            **KEYS,
            "AWS_ENDPOINT_URL_S3": s3,
            "CELLNET_REGISTRY": REGISTRY,
            **environment,
        }

    def step(self, text: str) -> float:
        """Announce a step, and when it began."""
        now = time.monotonic() - self.clock
        print(f"[{now:4.0f} s] {text}", flush=True)
        return now

    def cellnet(self, *words: object, ends: Sequence[int] = (0,)) -> str:
        """What a command prints on stdout. Ends the loop with what it said where it fails."""
        command = ["cellnet", *map(str, words)]
        self.step(f"$ {shlex.join(command)}")
        done = subprocess.run(
            [sys.executable, "-m", *command], env=self.environment, cwd=self.out, text=True, capture_output=True
        )
        if done.returncode not in ends:
            raise SystemExit(f"loop: {shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address of `cellnet serve` with the bank, until the block ends."""
        port = OwnCluster.free_port()
        command = ["cellnet", "serve", "--bank", BANK, "--port", str(port)]
        self.step(f"$ {shlex.join(command)}")
        with (self.out / "serve.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=self.environment, cwd=self.out, stdout=log, stderr=log
            )
        try:
            address = f"http://127.0.0.1:{port}/"
            _wait_until_ready(process, address, self.out / "serve.log")
            yield address
        finally:
            process.terminate()
            process.wait(120)


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            with urlopen(f"{address}readyz", timeout=5) as answer:
                if json.load(answer)["status"] == "ok":
                    return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"loop: the service is not there:\n{log.read_text()[-4000:]}")


def go_round(
    lab: Lab, *, wells: int, corrected: int, train: Sequence[str] = (), promote: Sequence[str] = ()
) -> dict[str, Any]:
    """From a champion to a better one, by a plate that it does not know: what was seen, and how long it took.

    `train` and `promote` are further options of these commands.
    """
    lab.step(f"a plate of {wells} wells, recorded by a microscope that the champion never saw")
    truth = draw_plate(lab.out / "plate" / PLATE, wells)
    with lab.serving() as address, Person.at(address) as person:
        lab.step("the plate is uploaded")
        before = person.upload(lab.out / "plate")
        person.picture(lab.out / "1-plate.png", "#plates")
        chosen = (person.proposed() or list(truth))[:corrected]
        person.picture(lab.out / "2-first.png", "#first")
        began = lab.step(f"{corrected} frames are corrected, half by mouse, half by keys")
        for number, name in enumerate(chosen):
            by_mouse = number % 2 == 0
            told = person.correct(name, truth[name], by_mouse=by_mouse)
            if number == 0:
                person.picture(lab.out / "3-corrected.png")
            lab.step(f"{name} by {'mouse' if by_mouse else 'keys'}: {told}")
            person.close()
        saved = lab.step("all are saved")
        learned = learn(lab, train, promote)
        promoted = lab.step("promoted; the service follows")
        person.wait_for_model(f"regressor@{learned}")
        after = person.upload(lab.out / "plate")
        person.picture(lab.out / "4-after.png", "#plates")
        lab.cellnet("bank", "import", _manifest_of(lab.out / "plate", truth), BANK)
        lab.cellnet("suggest", BANK, "regressor:champion", "-n", corrected, "--html", lab.out / "next.html")
        person.browser.get((lab.out / "next.html").as_uri())
        person.picture(lab.out / "5-next.png")
        disagreed = lab.cellnet("registry", "show", "regressor@1", "--bank", BANK, "--json")
    aside = [name for name in truth if name not in chosen]

    def mae(counts: Mapping[str, float]) -> float:
        return float(np.mean([abs(counts[name] - len(truth[name])) for name in aside]))

    return {
        "wells": wells,
        "corrected": corrected,
        "kept_aside": len(aside),
        "cells_of_a_frame": float(np.mean([len(truth[name]) for name in aside])),
        "mae_before": mae(before),
        "mae_after": mae(after),
        "people_said_otherwise": json.loads(disagreed)["judged"]["all"],
        "seconds_of_correcting": round(saved - began, 1),
        "seconds_from_saved_to_promoted": round(promoted - saved, 1),
    }


def _manifest_of(folder: Path, names: Iterable[str]) -> Path:
    """A manifest of the plate without labels, for what to label next."""
    manifest = folder / "manifest.csv"
    rows = [f"{PLATE}/{name},,,{group_of(PLATE, *named_well(name[:3]) or ())}" for name in names]
    manifest.write_text("\n".join(["image,lineage,count,group", *rows, ""]))
    return manifest


def learn(lab: Lab, train: Sequence[str], promote: Sequence[str]) -> int:
    """The number of the version that learned from what was corrected, and is champion."""
    start = "model.weights=regressor:champion"
    lab.cellnet("train", BANK, "--task", "count", "--set", start, *train)
    newest = json.loads(lab.cellnet("registry", "list", "regressor", "--newest", "1", "--json"))[0]["model"]
    lab.cellnet("registry", "promote", newest, "champion", "--bank", BANK, *promote)
    return int(newest.rpartition("@")[2])


def draw_plate(folder: Path, wells: int) -> dict[str, Points]:
    """A frame of each well of a plate of 96, row by row, and where its cells are, by the frame's name."""
    folder.mkdir(parents=True)
    truth: dict[str, Points] = {}
    for number in range(wells):
        lineage = LINEAGES[number % len(LINEAGES)]
        rng = np.random.default_rng((7, number))
        frame = draw_frame(lineage, rng, size_px=SIZE_PX, well=draw_well(lineage, rng))
        image_HW = recorded_by(OTHER, frame.image_HW, number)
        name = f"{'ABCDEFGH'[number // 12]}{number % 12 + 1:02d}_f1.png"
        cv2.imwrite(str(folder / name), image_HW)
        truth[name] = frame.centres_N2 * (image_HW.shape[0] / SIZE_PX)
    return truth


class Person:
    """Somebody before the page, who knows where the cells are."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser, self.address = browser, address

    @classmethod
    @contextmanager
    def at(cls, address: str) -> Iterator[Self]:
        """With the page open."""
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in FLAGS.split():
            options.add_argument(flag)
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            yield cls(browser, address)
        finally:
            browser.quit()

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def wait_for(self, true: Any) -> None:
        WebDriverWait(self.browser, WAIT_S, poll_frequency=0.05).until(lambda _: true())

    def picture(self, file: Path, of: str | None = None) -> None:
        """What is on the screen, or a part of the page."""
        if of is None:
            self.browser.save_screenshot(str(file))
            return
        time.sleep(0.5)  # until pictures of images have their places
        box = self.browser.execute_script(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return { x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1 }",
            of,
        )
        shot = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": box})
        file.write_bytes(base64.b64decode(shot["data"]))

    def upload(self, folder: Path) -> dict[str, float]:
        """What the page counts in each image of a folder, by its name, as its table says it."""
        self.browser.get(self.address)
        images = sorted(folder.rglob("*.png"))
        self.find("#folder").send_keys(str(folder))
        self.wait_for(lambda: self.find("#status").text.startswith(f"{len(images)} of {len(images)} done"))
        downloads = folder.parent / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        self.browser.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
        )
        self.find("#csv").click()
        self.wait_for((downloads / "cellnet.csv").exists)
        lines = list(csv.DictReader((downloads / "cellnet.csv").read_text(encoding="utf-8").splitlines()))
        return {Path(line["image"]).name: float(line["count"]) for line in lines}

    def proposed(self) -> list[str]:
        """The names of the images that the page proposes to look at first."""
        return [name.text for name in self.browser.find_elements("css selector", "#firsts button span")]

    def correct(self, name: str, truth: Points, *, by_mouse: bool) -> str:
        """Correct a frame, and what the page says of saving it: rings by mouse, or the number by keys alone."""
        self.open(name)
        if by_mouse:
            self._correct_rings(truth)
        else:
            self._say_count(len(truth))
        self.wait_for(lambda: "aved" in self.find("#kept").text)  # Saved, or Not saved
        told = str(self.find("#kept").text)
        if not told.startswith("Saved"):
            raise SystemExit(f"loop: {name}: {told}")
        return told

    def open(self, name: str) -> None:
        row = self.browser.execute_script(
            "return [...document.querySelectorAll('#rows tr')].find(row => row.querySelector('.name').textContent"
            ".includes(arguments[0]))",
            name,
        )
        row.find_element("css selector", "button").click()
        self.wait_for(lambda: self.find("#bench").is_displayed())

    def close(self) -> None:
        self.find("#close").click()

    def _correct_rings(self, truth: Points) -> None:
        """Rings where no cell is are clicked away, and cells without a ring get one."""
        rings_N2 = np.array(self.browser.execute_script("return label.points.map(({x, y}) => [x, y])")).reshape(-1, 2)
        false, missing = unmatched(rings_N2, truth)
        self.find("[data-tool=cells]").click()
        for point in (*false, *missing):
            self._click(point)
        by = self.find("#by")
        by.clear()
        by.send_keys("Ada")
        self.find("#keep" if false or missing else "#accept").click()

    def _click(self, point: NDArray[np.float64]) -> None:
        canvas = self.find("[data-bench=canvas]")
        width, height, wide, high = self.browser.execute_script(
            "const [canvas, frame] = ['canvas', 'frame'].map(name => document.querySelector(`[data-bench=${name}]`));"
            "return [canvas.clientWidth, canvas.clientHeight, frame.width, frame.height]"
        )
        scale = min(width / wide, height / high)
        x, y = (round((at - side / 2) * scale) for at, side in zip(point, (wide, high), strict=True))
        ActionChains(self.browser, duration=0).move_to_element_with_offset(canvas, x, y).click().perform()

    def _say_count(self, cells: int) -> None:
        """By the tabulator to the field of the count, which is typed over, and Enter."""
        field = "return document.activeElement.matches('[data-bench=count]')"
        for _ in range(60):
            ActionChains(self.browser, duration=0).send_keys(Keys.TAB).perform()
            if self.browser.execute_script(field):
                break
        typed = ActionChains(self.browser, duration=0).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL)
        typed.send_keys(str(cells), Keys.ENTER).perform()

    def wait_for_model(self, ref: str) -> None:
        """Until the service says that it answers with a version."""

        def follows() -> bool:
            with urlopen(f"{self.address}v1/models", timeout=30) as answer:
                return ref in {model["ref"] for model in json.load(answer)["models"]}

        self.wait_for(follows)


def unmatched(rings_N2: Points, truth_M2: Points) -> tuple[list[Points], list[Points]]:
    """The rings without a cell and the cells without a ring, each paired with the nearest that is left."""
    away_NM = np.linalg.norm(rings_N2[:, None] - truth_M2[None], axis=2)
    rings, cells = set(range(len(rings_N2))), set(range(len(truth_M2)))
    for place in np.argsort(away_NM, axis=None):
        ring, cell = divmod(int(place), max(1, len(truth_M2)))
        if away_NM[ring, cell] > NEAR_PX:
            break
        if ring in rings and cell in cells:
            rings.discard(ring)
            cells.discard(cell)
    return [rings_N2[ring] for ring in sorted(rings)], [truth_M2[cell] for cell in sorted(cells)]


if __name__ == "__main__":
    main()
