"""The page in a real browser, over models whose answers are known."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray

from cellnet.answers import Answer
from cellnet.images import encode_png
from serve.api import make_api
from serve.schemas import ModelInfo
from serve.uploads import Limits

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium-driver)")

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1000,900"
)


class Known:
    """A model that always says the same: A172 with 0.9, or 12 cells."""

    def __init__(self, answer: Answer) -> None:
        self.known = answer

    async def answer(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None) -> Answer:
        return self.known

    async def describe(self) -> ModelInfo:
        return ModelInfo(
            ref=self.known.model,
            task=self.known.task,
            classes=[],
            scores={},
            bank_digest="",
            tile_px=(200, 200),
            pixel_um=None,
        )


@pytest.fixture
def address() -> Iterator[str]:
    """Where the API answers, on a free port."""
    shares = {"A172": 0.9, "VERO6": 0.1}
    classifier = Answer(model="classifier@1", task="classify", probabilities=shares, tiles=1, magnification="assumed")
    regressor = Answer(
        model="regressor@2",
        task="count",
        count=12.0,
        count_low=9.5,
        count_high=14.5,
        interval_level=0.9,
        unfamiliar=True,
        unfamiliar_reason="it is a picture of noise",
        tiles=1,
        magnification="assumed",
    )
    api = make_api([Known(classifier), Known(regressor)], Limits(request_mb=1, images=1))
    server = uvicorn.Server(uvicorn.Config(api, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def browser() -> Iterator["webdriver.Chrome"]:
    """Headless Chromium that keeps what its console says."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.implicitly_wait(10)
    yield driver
    driver.quit()


def test_chosen_images_are_listed_with_lineage_and_count(
    address: str, browser: "webdriver.Chrome", tmp_path: Path
) -> None:
    noise_HW = np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)
    files = {"a.png": encode_png(noise_HW), "=b.tif": b"not an image"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    browser.get(address)
    browser.find_element("id", "files").send_keys("\n".join(str(tmp_path / name) for name in files))
    browser.find_element("xpath", "//span[@role='status'][text()='2 of 2 done']")
    good, bad = ([cell.text for cell in row.find_elements("tag name", "td")] for row in rows(browser))
    assert good == [
        "",
        "a.png\nunlike the training images: do not rely on it",
        "A172 90 %",
        "12.0\n9.5–14.5",
    ]
    assert bad == ["TIF", "=b.tif", "not a readable PNG, JPEG, TIFF or BMP image", "–"]
    assert browser.find_element("id", "models").text == "Served: classifier@1, regressor@2"
    assert browser.find_element("id", "csv").is_enabled()
    assert [entry for entry in browser.get_log("browser") if "Content Security" in entry["message"]] == []


def test_every_page_of_a_stack_has_a_row_if_one_asks_for_it(
    address: str, browser: "webdriver.Chrome", tmp_path: Path
) -> None:
    stack_3HW = np.random.default_rng(0).integers(0, 255, (3, 200, 200), np.uint8)
    assert cv2.imwritemulti(str(tmp_path / "stack.tif"), list(stack_3HW))
    browser.get(address)
    browser.find_element("id", "files").send_keys(str(tmp_path / "stack.tif"))
    browser.find_element("xpath", "//span[@role='status'][text()='1 of 1 done']")
    browser.find_element("css selector", "#page option[value=all]").click()
    browser.find_element("id", "files").send_keys(str(tmp_path / "stack.tif"))
    browser.find_element("xpath", "//span[@role='status'][text()='2 of 2 done']")
    names = [row.find_element("css selector", "td.name").text.split("\n")[0] for row in rows(browser)]
    assert names == ["stack.tif#2", "stack.tif#1", "stack.tif#2", "stack.tif#3"]


def rows(browser: "webdriver.Chrome") -> list["webdriver.remote.webelement.WebElement"]:
    return browser.find_elements("css selector", "#rows tr")
