"""The page in a real browser, over a service whose answers are known: a file holds what is said of it, as JSON."""

import asyncio
import csv
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from cellnet.bank.frames import digest_of_pixels
from cellnet.images.file import ImageFile, encode_png
from cellnet.images.wells import read_names, thumbnails
from serve.http.pages import content_policy, page_html
from serve.thumbnails import thumbnail

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
from selenium.webdriver import ActionChains, Keys  # noqa: E402 - only where there is selenium
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium-driver)")

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1000,900"
)
SHARES = {"A172": 0.9, "VERO6": 0.1}
RAMP = np.linspace(1000, 5000, 400 * 300, dtype=np.uint16).reshape(300, 400)
NOISE_PNG = encode_png(np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8))


class Service:
    """What the page asks; each test says how it is to answer."""

    address: str

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.asked: list[dict[str, str]] = []  # the query of every request for a prediction
        self.at_once = self.most_at_once = 0
        self.refusals = 0  # as many requests find it busy
        self.too_late = 0  # as many take it too long
        self.key: str | None = None
        self.problems: list[str] = []
        self.saves = False  # whether it writes labels into a bank
        self.labels: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []  # what the bank has of every image
        self.recalled: list[str] = []  # the images of which that was asked
        self.refuses: str | None = None
        self.go_on = threading.Event()  # predictions wait for it
        self.go_on.set()

    async def predict(self, request: Request) -> Response:
        self.asked.append(dict(request.query_params))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            body = await request.body()
            while not self.go_on.is_set():
                await asyncio.sleep(0.01)
            return self.answer(request, body)
        finally:
            self.at_once -= 1

    async def pixels(self, request: Request) -> Response:
        """Of what is no image: a ramp of 16 bits, 400 pixels wide and 300 high."""
        body = await request.body()
        image_HW = RAMP
        if body.startswith((b"\x89PNG", b"II")):
            [image] = ImageFile("a", body).pages("middle")
            image_HW = image.decode()
        values = {"Cellnet-Shape": "{}, {}".format(*image_HW.shape), "Cellnet-Bits": str(8 * image_HW.itemsize)}
        return Response(image_HW.tobytes(), headers=values | {"Cellnet-Sha256": digest_of_pixels(image_HW)})

    async def known(self, frame: str) -> Response:
        self.recalled.append(frame)
        return problem(403, self.refuses) if self.refuses else JSONResponse({"frame": frame, "others": self.others})

    async def label(self, request: Request) -> Response:
        if self.refuses:
            return problem(507 if "bank" in self.refuses else 403, self.refuses)
        form = await request.form()
        image = form["images"]
        self.labels.append({"name": image.filename, "bytes": await image.read()} | json.loads(str(form["label"])))
        others = [{"by": "Bob", "at": "2026-11-29T09:00:00Z", "lineage": None, "count": 14.0, "unusable": None}]
        told = {"frame": "0" * 64, "entry": len(self.labels), "added": True, "others": others}
        return JSONResponse(told)

    def answer(self, request: Request, body: bytes) -> Response:
        name = request.query_params["name"]
        if not self.lets_in(request):
            return problem(401, "give the key as Authorization: Bearer KEY")
        if self.refusals:
            self.refusals -= 1
            return problem(503, "busy; try again later", {"Retry-After": "1"})
        if self.too_late:
            self.too_late -= 1
            return problem(504, "the answer took longer than 5 s", {"Retry-After": "0.1"})
        if body == b"not an image":
            return problem(422, f"{name}: not a readable PNG, JPEG, TIFF or BMP image")
        if "overlay" in request.query_params:
            return Response(NOISE_PNG, media_type="image/png")
        if body.startswith((b"\x89PNG", b"II")):
            [image] = ImageFile(name, body).pages("middle")
            small = thumbnail(image.decode()) if "thumbnail" in request.query_params else None
            return JSONResponse({"predictions": [prediction(name, thumbnail=small)]})
        said = json.loads(body)
        if isinstance(said, dict) and (channels := said.pop("of", None)) and "channel" not in request.query_params:
            return problem(422, f"{name}: holds {len(channels)} channels; choose one", channels=channels)
        if isinstance(said, dict):
            return JSONResponse({"predictions": [prediction(name, **said)]})
        return JSONResponse({"predictions": [prediction(f"{name}#{page}", **one) for page, one in enumerate(said, 1)]})

    def lets_in(self, request: Request) -> bool:
        return self.key is None or request.headers.get("Authorization") == f"Bearer {self.key}"


def prediction(image: str, **said: Any) -> dict[str, Any]:
    known = {
        **{"image": image, "lineage": "A172", "probabilities": SHARES, "count": 12.0, "count_low": 9.5},
        **{"count_high": 14.5, "interval_level": 0.9, "unfamiliar": False, "unfamiliar_reason": None, "tiles": 1},
        **{"magnification": "matched", "models": {"classifier": "classifier@1", "regressor": "regressor@2"}},
        **{"error": None, "timing": {"read_ms": 2.2, "models_ms": 30.0}},
    }
    return known | said


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    body = {"title": "No", "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def application(service: Service) -> FastAPI:
    """The service, below /lab as behind a proxy."""
    api = FastAPI()
    html = page_html()

    @api.get("/lab/")
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": content_policy(html)})

    @api.get("/lab/healthz")
    async def healthz() -> str:
        return "ok"

    @api.get("/lab/readyz")
    async def readyz() -> dict[str, Any]:
        return {"status": "stale" if service.problems else "ok", "problems": service.problems}

    @api.get("/lab/v1/models")
    async def models(request: Request) -> Response:
        if not service.lets_in(request):
            return problem(401, "give the key as Authorization: Bearer KEY")
        known = [{"ref": "classifier@1"}, {"ref": "regressor@2"}]
        return JSONResponse({"models": known, "corrections": service.saves})

    api.post("/lab/v1/predict")(service.predict)
    api.post("/lab/v1/pixels")(service.pixels)
    api.post("/lab/v1/labels")(service.label)
    api.get("/lab/v1/labels")(service.known)
    return api


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Answers at its `address`, on a free port."""
    service = Service()
    server = uvicorn.Server(uvicorn.Config(application(service), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    service.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/lab/"
    yield service
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator["webdriver.Chrome"]:
    """Headless Chromium that keeps what its console says."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


class Page:
    """The page as a user has it before them."""

    def __init__(self, browser: "webdriver.Chrome", folder: Path) -> None:
        self.browser = browser
        self.folder = folder

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """What is to be read in all that match, be it on the screen or further down."""
        return self.run(
            "[...document.querySelectorAll(arguments[0])].map(function words(node) {"
            "return (node.data ?? [...node.childNodes].map(words).join(' ')).replace(/\\s+/g, ' ').trim(); })",
            selector,
        )

    def run(self, script: str, *values: object) -> Any:
        return self.browser.execute_script(f"return {script}", *values)

    def command(self, name: str, **values: object) -> Any:
        return self.browser.execute_cdp_cmd(name, values)

    def wait_for(self, true: Callable[[], object]) -> None:
        WebDriverWait(self.browser, 20, poll_frequency=0.03).until(lambda _: true())

    def wait_for_status(self, text: str) -> None:
        self.wait_for(lambda: self.find("#status").text.startswith(text))

    def write(self, name: str, content: object = None) -> Path:
        """A file: bytes as they are, all else as the JSON of its answer."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content or {}).encode())
        return path

    def choose(self, *paths: Path) -> None:
        self.find("#files").send_keys("\n".join(map(str, paths)))

    def choose_folder(self, path: Path) -> None:
        self.find("#folder").send_keys(str(path))

    def drop(self, *paths: Path) -> None:
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=300, y=200, data=data)

    def download(self, button: str = "#csv", name: str = "cellnet.csv") -> list[list[str]]:
        """The lines of the downloaded CSV."""
        folder = self.folder / "downloads"
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.find(button).click()
        self.wait_for(lambda: (folder / name).exists() and (folder / name).stat().st_size)  # it is empty at first
        return list(csv.reader((folder / name).read_text(encoding="utf-8").splitlines()))

    def see_overlay(self) -> None:
        """Of the frame that was opened: what was seen in it."""
        self.wait_for(lambda: self.find("#bench").is_displayed())
        self.find("#tab-seen").click()
        self.wait_for(lambda: self.find("#overlay").is_displayed())

    def open_bench(self, row: int = 1) -> None:
        """Open the frame of a row to correct it."""
        self.find(f"#rows tr:nth-child({row}) button").click()
        self.wait_for(lambda: self.find("#bench").is_displayed())

    def plate(self, number: int = 1) -> dict[str, str]:
        """What a plate's map says of its wells."""
        header, *lines = (
            [" ".join(cell.split()) for cell in line]
            for line in self.run(
                f"[...document.querySelectorAll('#maps figure:nth-child({number}) tr')].map("
                "line => [...line.cells].map(cell => cell.innerText.trim()))"
            )
        )
        cells = {line[0] + column: text for line in lines for column, text in zip(header[1:], line[1:], strict=True)}
        return {well: text for well, text in cells.items() if text}


def said_in_the_console(chromium: "webdriver.Chrome") -> list[object]:
    return [entry for entry in chromium.get_log("browser") if entry["source"] != "network"]


@pytest.fixture
def page(chromium: "webdriver.Chrome", service: Service, tmp_path: Path) -> Iterator[Page]:
    """The page, just opened; nothing may be blocked or go wrong in it, whatever a test does."""
    service.reset()
    chromium.get(service.address)
    assert said_in_the_console(chromium) == []
    yield Page(chromium, tmp_path)
    service.go_on.set()
    assert said_in_the_console(chromium) == []
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_chosen_images_are_listed_with_lineage_count_and_what_is_wrong(page: Page) -> None:
    unlike = {
        "unfamiliar": True,
        "count_unfamiliar": True,
        "unfamiliar_reason": "it is noise",
        "magnification": "assumed",
        "count": 1234.5,
    }
    files = {"a.png": NOISE_PNG, "b.tif": unlike, "c.jpg": b"not an image"}
    page.choose(*(page.write(name, content) for name, content in files.items()))
    page.wait_for_status("3 of 3 done, 1 failed")
    assert page.texts("#rows tr :is(.name, .lineage, .count)") == [
        *("a.png", "A172 90 %", "12.0 9.5–14.5"),
        *("b.tif unlike the training images: do not rely on the count", "A172 90 %", "1,235 9.5–14.5"),
        *("c.jpg", "not a readable PNG, JPEG, TIFF or BMP image"),
    ]
    assert page.texts("#images thead th") == ["Image", "Lineage", "Cells (90 % interval)", "Look"]
    assert page.texts("#rows .thumb") == ["", "TIF", "JPG"], "the first is a picture"
    assert page.texts("#summary li:not(.bad)") == ["3 images", "1,247 cells", "A172 2"]
    assert page.texts("#summary .bad") == ["1 failed"]
    assert page.find("#assumed").text.startswith("The pixel size of 1 image is not known")
    assert page.texts("footer") == ["Served: classifier@1, regressor@2. The API, for programs"]
    assert not page.find("#notice").is_displayed()
    assert not page.find("#plates").is_displayed()


def test_a_folder_of_hundreds_is_done_to_the_end_a_few_at_a_time(page: Page, service: Service) -> None:
    for number in range(300):
        page.write(f"many/{number}.png", {"count": number / 10})
    page.write("many/notes.txt")
    page.write("many/.hidden.png")
    service.go_on.clear()
    page.choose_folder(page.folder / "many")
    page.wait_for(lambda: service.at_once == 4)
    service.go_on.set()
    page.wait_for_status("300 of 300 done; skipped, not an image: 2, many/.hidden.png, many/notes.txt")
    names = [f"many/{number}.png" for number in range(300)]
    assert [name.split()[0] for name in page.texts("#rows .name")] == [f"{number}.png" for number in range(300)]
    assert [line[0] for line in page.download()] == ["image", *names]
    assert sorted(query["name"] for query in service.asked) == sorted(names)
    assert service.most_at_once == 4
    assert page.run("[progress.value, progress.max]") == [300, 300]
    assert page.texts("#summary li")[:2] == ["300 images", "4,485 cells"]
    page.find("#find").send_keys("299")
    assert page.texts("#rows tr:not([hidden]) .name") == ["299.png many"]


def test_dropped_folders_are_read_to_the_bottom(page: Page) -> None:
    for name in ("P1/deep/a.png", "P2/b.png", "P2/c.csv"):
        page.write(f"plates/{name}")
    page.browser.execute_script(
        "window.told = []; const spoken = document.getElementById('spoken');"
        "new MutationObserver(() => told.push(spoken.textContent)).observe(spoken, { childList: true });"
    )
    page.drop(page.folder / "plates", page.write("d.png"))
    page.wait_for_status("3 of 3 done; skipped, not an image: 1, plates/P2/c.csv")
    assert page.run("told") == [
        "Reading what was dropped…",
        "3 images to do",
        "3 of 3 done; skipped, not an image: 1, plates/P2/c.csv",
    ]
    assert page.texts("#rows .name") == ["d.png", "a.png plates/P1/deep", "b.png plates/P2"]


def test_what_is_asked_is_what_was_chosen(page: Page, service: Service) -> None:
    page.find("#pixel").send_keys("0.65")
    page.choose(page.write("a.png"))
    page.wait_for_status("1 of 1 done")
    assert service.asked == [{"name": "a.png", "page": "middle", "pixel_um": "0.65", "thumbnail": "true"}]


def test_a_busy_service_is_asked_again_when_it_says(page: Page, service: Service) -> None:
    service.refusals = 1
    page.browser.execute_script(
        "window.told = []; const status = document.getElementById('status');"
        "new MutationObserver(() => told.push(status.textContent)).observe(status, { childList: true });"
    )
    page.choose(page.write("a.png"))
    page.wait_for_status("1 of 1 done")
    assert "0 of 1 done; the service is busy, trying again in 1 s" in page.run("told")
    assert page.texts("#rows .lineage") == ["A172 90 %"]
    assert len(service.asked) == 2


@pytest.mark.parametrize(("times", "said"), [(2, "A172 90 %"), (3, "the answer took longer than 5 s")])
def test_an_image_that_takes_too_long_is_given_up_the_third_time(
    page: Page, service: Service, times: int, said: str
) -> None:
    service.too_late = times
    page.choose(page.write("a.png"))
    page.wait_for_status("1 of 1 done")
    assert page.texts("#rows .lineage") == [said]
    assert len(service.asked) == 3


def test_a_service_that_goes_away_is_waited_for(page: Page) -> None:
    page.command("Network.enable")
    page.command("Network.setBlockedURLs", urls=["*/lab/*"])
    page.choose(page.write("a.png"))
    page.wait_for(lambda: "no answer from the service, trying again" in page.find("#status").text)
    page.command("Network.setBlockedURLs", urls=[])
    page.wait_for_status("1 of 1 done")
    assert page.texts("#rows .lineage") == ["A172 90 %"]


def test_what_waits_for_a_key_goes_on_once_it_is_given(page: Page, service: Service) -> None:
    service.key = "right"
    page.choose(*(page.write(name) for name in ("a.png", "b.png")))
    page.wait_for(lambda: page.find("#key").is_displayed())
    page.wait_for_status("0 of 2 done; waiting for the API key")
    page.find("#key").send_keys("wrong\n")
    page.wait_for(lambda: page.find("#refused").text == "The service does not take this key.")
    page.find("#key").send_keys("right\n")
    page.wait_for_status("2 of 2 done")
    assert page.texts("#rows .lineage") == ["A172 90 %"] * 2
    assert not page.find("#unlock").is_displayed()
    assert page.run("sessionStorage.length + localStorage.length + document.cookie.length") == 0


def test_every_page_of_a_stack_has_a_row_if_one_asks_for_it(page: Page, service: Service) -> None:
    page.find("#page option[value=all]").click()
    page.choose(page.write("stack.tif", [{"count": 1}, {"count": 2}, {"count": 3}]))
    page.wait_for_status("1 of 1 done")
    assert page.texts("#rows .name") == ["stack.tif#1", "stack.tif#2", "stack.tif#3"]
    assert page.texts("#rows .count b") == ["1.0", "2.0", "3.0"]
    page.find("#rows tr:nth-child(2) button").click()
    page.see_overlay()
    assert service.asked[-1] == {"name": "stack.tif", "page": "2", "overlay": "true"}


def test_only_small_copies_of_what_lies_beside_them_are_left_out(page: Page) -> None:
    paths = ["a/x.tif", "a/x_thumb.png", "a/with_thumbnail.tif", "b/x_thumb.png"]
    kept = page.run("withoutThumbnails(arguments[0].map(path => ({ path }))).map(({ path }) => path)", paths)
    assert kept == ["a/x.tif", "a/with_thumbnail.tif", "b/x_thumb.png"]
    assert set(paths) - set(kept) == thumbnails(paths)


def test_which_channel_of_files_is_meant_is_asked_once_for_all_that_have_the_same(page: Page, service: Service) -> None:
    dyes, others = {"of": ["DAPI", "GFP"]}, {"of": ["w1", "Phase contrast"]}
    files = {"a.tif": dyes, "b.tif": dyes, "c.tif": {}, "d.tif": others}
    page.choose(*(page.write(name, said) for name, said in files.items()))
    page.wait_for(lambda: page.find("#channels").is_displayed())
    page.wait_for_status("1 of 4 done")
    assert page.texts("#channel option") == ["1 DAPI", "2 GFP"]
    asking = page.find("#channels label").text
    assert re.fullmatch(r"Which channel of [ab]\.tif is brightfield or phase\?", asking), asking
    page.find("#channel option[value='2']").click()
    page.find("#channels button:not([type])").click()
    page.wait_for(lambda: page.texts("#channel option") == ["1 w1", "2 Phase contrast"])
    assert page.run("document.querySelector('#channel').value") == "2", "the likely one"
    page.wait_for_status("3 of 4 done")
    page.find("#channels button[type=reset]").click()
    page.wait_for_status("4 of 4 done, 1 failed")
    assert not page.find("#channels").is_displayed()
    asked = [(one["name"], one["channel"]) for one in service.asked if "channel" in one]
    assert sorted(asked) == [("a.tif", "2"), ("b.tif", "2")]
    assert "holds 2 channels; choose one" in page.find("#rows .failed").text
    row = next(n for n, name in enumerate(page.texts("#rows .name"), 1) if name == "a.tif")
    page.find(f"#rows tr:nth-child({row}) button").click()
    page.see_overlay()
    assert service.asked[-1] == {"name": "a.tif", "page": "middle", "channel": "2", "overlay": "true"}


def test_wells_become_a_map_of_each_plate(page: Page) -> None:
    vero = {"lineage": "VERO6", "probabilities": {"A172": 0.3, "VERO6": 0.7}}
    files = {
        **{"P1/A01_f1.png": {"count": 10}, "P1/A01_f2.png": {"count": 20}, "P1/C1 f1.png": {"count": 40}},
        **{"P1/C1_f2.png": b"not an image", "P1/H12.png": b"not an image"},
        "P2/Images/r02c03f01.png": {"count": 25, **vero},
        "P2/Images/r02c03f02.png": {"count": 26, "unfamiliar": True, "lineage_unfamiliar": True},
    }
    for name, content in files.items():
        page.write(f"study/{name}", content)
    page.choose_folder(page.folder / "study")
    page.wait_for_status("7 of 7 done")
    assert page.texts("figcaption") == ["P1: mean cells per field, by well", "P2: mean cells per field, by well"]
    nothing = "× (no image could be used)"
    assert page.plate(1) == {"A1": "15.0 (2 fields)", "C1": "40.0 (1 field)", "H12": nothing}
    assert page.plate(2) == {"B3": "25.5 (2 fields)"}
    shares = page.run("[...document.querySelectorAll('.well')].map(well => well.style.getPropertyValue('--share'))")
    assert shares == ["38", "100", "64"]
    assert page.texts(".ramp") == [
        "0 40.0 1–2 fields a well × no image could be used",
        "0 40.0 2 fields a well",
    ]
    page.find("#by-lineage").click()
    assert page.texts(".ramp")[1] == "2 fields a well * unlike the training images"
    assert page.texts("figcaption") == ["P1: lineage, by well", "P2: lineage, by well"]
    assert page.plate(1) == {"A1": "A172 90 % (2 fields)", "C1": "A172 90 % (1 field)", "H12": nothing}
    assert page.plate(2) == {"B3": "A172 60 %* (2 fields, unlike the training images)"}
    headers = page.run(
        "[...document.querySelector('.plate').querySelectorAll('th')].map(th => th.scope + th.innerText)"
    )
    assert headers == [*(f"col{column}" for column in range(1, 13)), *(f"row{row}" for row in "ABCDEFGH")]
    wells = [["P1", "A01"]] * 2 + [["P1", "C01"]] * 2 + [["P1", "H12"]] + [["P2", "B03"]] * 2
    assert [line[-2:] for line in page.download()[1:]] == wells


def test_a_path_tells_the_page_what_it_tells_cellnet_predict(page: Page) -> None:
    with (Path(__file__).parents[1] / "data/wells.csv").open(newline="", encoding="utf-8") as file:
        examples = list(csv.DictReader(file))
    given = [[*filter(None, row["beside"].split("|")), row["path"]] for row in examples]
    found = page.run("arguments[0].map(paths => readNames(paths).at(-1))", given)
    told = [
        {
            **{"plate": place["folder"], "channel": place.get("channel") or "", "path": row["path"]},
            "plane": "" if place["plane"] is None else str(place["plane"]),
            "well": place["well"] or "?" * bool(place["couldBe"]) + "|".join(place["couldBe"]),
        }
        for row, place in zip(examples, found, strict=True)
    ]
    assert told == [{key: row[key] for key in one} for row, one in zip(examples, told, strict=True)]
    together = [row["path"] for row in examples]
    names, found = read_names(together), page.run("readNames(arguments[0])", together)
    assert [(one["well"], one["byOthers"]) for one in found] == [
        (name.well.name if name.well else "", name.by_others) for name in names
    ]
    there, here = [one["shot"] for one in found], [name.shot for name in names]
    assert [there.index(shot) for shot in there] == [here.index(shot) for shot in here]


def test_a_path_tells_the_page_the_time_that_it_tells_cellnet_predict(page: Page) -> None:
    with (Path(__file__).parents[1] / "data/times.csv").open(newline="", encoding="utf-8") as file:
        examples = list(csv.DictReader(file))
    given = [row["paths"].split("|") for row in examples]
    read = "arguments[0].map(paths => withTimes(readNames(paths), paths).map(({ hours }) => hours))"
    told = {row["source"]: hours for row, hours in zip(examples, page.run(read, given), strict=True)}
    assert told == {
        row["source"]: [None if said == "-" else pytest.approx(float(said), abs=1e-3) for said in row["hours"].split()]
        for row in examples
    }


@pytest.mark.parametrize(
    ("pattern", "wells"),
    [
        (r"x_([A-P]\d\d)", ["C02", "C03"]),
        (r"(?P<column>\d)_(?P<row>\d)\.", ["A04", "A05"]),
        (r"(?<col>\d)_(?<row>\d)\.", ["A04", "A05"]),
        (r"/([A-H]\d+)/", ["H11", "H11"]),
    ],
)
def test_the_well_can_be_said_by_a_regular_expression(page: Page, pattern: str, wells: list[str]) -> None:
    names = ["P1/H11/A549_x_C02_B05_4_1.png", "P1/H11/A549_x_C03_B05_5_1.png"]
    for name in names:
        page.write(name)
    assert [name.well.name for name in read_names(names, pattern) if name.well] == wells
    page.choose_folder(page.folder / "P1")
    page.wait_for_status("2 of 2 done")
    page.find("#wells").send_keys(pattern, Keys.ENTER)
    assert [line[-1] for line in page.download()[1:]] == wells
    assert [text.split(" · ")[-1] for text in page.texts("#rows .where")] == wells
    assert page.find("#plates").is_displayed() == (len(set(wells)) > 1)


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("(", "This is not a regular expression: Unterminated group."),
        (
            r"(\w)(\d)(\d)",
            "It leaves open which of its 3 groups is what; name them (?<well>…), or (?<row>…) and (?<col",
        ),
        ("nothing", "It finds a well in none of the 1 name, like x_B05.png."),
    ],
)
def test_what_is_wrong_with_an_expression_stands_beside_it_and_names_are_read_as_ever(
    page: Page, pattern: str, wrong: str
) -> None:
    page.find("#wells").send_keys(pattern)
    page.choose(page.write("x_B05.png"))
    page.wait_for_status("1 of 1 done")
    assert page.find("#wells-wrong").text.startswith(wrong)
    assert page.find("#wells").get_attribute("aria-invalid") == "true"
    assert page.texts("#rows .where") == ["B05"]
    page.find("#wells").send_keys(Keys.BACKSPACE * len(wrong), Keys.ENTER)
    assert page.find("#wells-wrong").text == "" and page.find("#wells").get_attribute("aria-invalid") == "false"


def test_folders_that_are_called_after_times_are_one_plate_with_curves(page: Page) -> None:
    for folder, count in (("0h", 10), ("24h", 20), ("day2", 40)):
        for well in ("B03", "B04"):
            page.write(f"P1/{folder}/{well}.png", {"count": count})
    page.choose_folder(page.folder / "P1")
    page.wait_for_status("6 of 6 done")
    assert page.texts("figcaption") == ["P1: mean cells per field, by well"]
    told = page.run("[...document.querySelectorAll('.curves title')].map(one => one.textContent)")
    assert told == [f"{well}: 10.0 at 0 h, 20.0 at 24 h, 40.0 at 48 h" for well in ("B03", "B04")]


def test_wells_over_time_have_curves(page: Page) -> None:
    for well, doubling_h in {"B3": 24, "C4": 48}.items():
        for time_h in (0, 24, 48):
            for site in (1, 2):
                count = 10 * 2 ** (time_h / doubling_h) + (site - 1.5) * 4
                page.write(f"P1/V1_{well}_{site}_0{time_h // 24}d00h00m.tif", {"count": count})
    for well in ("B3", "B4"):
        page.write(f"P2/{well}_24h.png", {"count": 3})
    page.write("P1/V1_B3_3_00d00h00m.tif", {"count": 900.0, "quality": ["saturated"]})  # has no part in its well
    page.choose_folder(page.folder)
    page.wait_for_status("15 of 15 done")
    told = page.run("[...document.querySelectorAll('.curves title')].map(one => one.textContent)")
    assert told == ["B03: 10.0 at 0 h, 20.0 at 24 h, 40.0 at 48 h", "C04: 10.0 at 0 h, 14.1 at 24 h, 20.0 at 48 h"]
    assert len(page.run("[...document.querySelectorAll('.curves svg')].map(one => 1)")) == 1, "one time is no series"
    [steep, flat] = page.run(
        "[...document.querySelectorAll('.curves polyline')].map(one => [...one.points].map(({ x, y }) => [x, y]))"
    )
    for points, share in ((steep, 1.0), (flat, 0.5)):
        rises = -np.diff([y for _, y in points])
        assert rises[0] == pytest.approx(rises[1], abs=0.2), "a doubling is as high everywhere"
        assert rises.sum() == pytest.approx(share * -np.diff([y for _, y in steep]).sum(), abs=0.3)
    assert page.texts(".curves .ramp") == [
        "Mean cells per field from 0 to 48 h, well by well; logarithmic, 10.0 to 40.0. The map above is of all times "
        "together."
    ]


def test_names_that_leave_their_well_open_are_told_and_on_no_plate(page: Page) -> None:
    page.choose(*(page.write(name) for name in ("r05c05.png", "x_A01_B02.png", "HeLa_P12_3.png")))
    page.wait_for_status("3 of 3 done")
    assert page.find("#doubts").text == (
        "1 name could mean two wells, like x_A01_B02.png (A01 or B02). 1 name may hold a well, or a day, a passage or "
        "a cell line, like HeLa_P12_3.png (P12). No map shows them; where they are of wells, say above where in a name "
        "the well is."
    )
    assert sorted(page.texts("#rows .where")) == ["", "", "E05"]
    page.find("#wells").send_keys(r"_A\d+_([A-H]\d+)", Keys.ENTER)
    assert page.find("#doubts").text == "2 names have no well by the expression above, like HeLa_P12_3.png."
    assert sorted(page.texts("#rows .where")) == ["", "", "B02"]
    page.choose(page.write("HeLa_B12_4.png"))
    page.wait_for_status("4 of 4 done")
    page.find("#wells").clear()
    page.find("#wells").send_keys(Keys.ENTER)
    assert "1 name read as the others of the folder, like HeLa_P12_3.png (P12)." in page.find("#doubts").text


def test_of_metaxpress_one_channel_and_plane_are_taken_and_no_thumbnail(page: Page, service: Service) -> None:
    uuid = "62D4A363-7C7E-40D0-8A9E-55EC6681574D"
    for well in ("B02", "C03"):
        for plane in (1, 2, 3):
            for channel in (1, 2):
                name = f"1334/TimePoint_1/ZStep_{plane}/assay_{well}_s1_w{channel}"
                page.write(f"{name}{uuid}.tif", {"count": 10 * channel + plane})
                page.write(f"{name}_thumb{uuid}.tif")
    page.choose_folder(page.folder / "1334")
    page.wait_for(lambda: page.find("#channels").is_displayed())
    assert page.texts("#channel option") == ["1 (2 images)", "2 (2 images)"]
    page.find("#channel option:nth-child(2)").click()
    page.find("#channels button").click()
    page.wait_for_status("2 of 2 done; 12 thumbnails left out; 10 other images left out")
    assert page.texts("figcaption") == ["1334: mean cells per field, by well"]
    assert page.plate() == {"B2": "22.0 (1 field)", "C3": "22.0 (1 field)"}


def test_a_plate_of_1536_wells_has_rows_to_af_and_48_columns(page: Page) -> None:
    for well, count in {"A01": 4, "AF48": 8}.items():
        page.write(f"P1/ZStep_1/x_{well}.png", {"count": count})
    page.choose_folder(page.folder / "P1")
    page.wait_for_status("2 of 2 done")
    assert page.texts("figcaption") == ["P1: mean cells per field, by well"]
    assert page.plate() == {"A1": "4.0 (1 field)", "AF48": "8.0 (1 field)"}
    headers = page.texts(".plate th")
    assert headers[:48] == [str(column) for column in range(1, 49)]
    assert headers[48:] == [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA", "AB", "AC", "AD", "AE", "AF"]
    heights = page.run("[...document.querySelectorAll('.plate tbody tr')].map(row => row.offsetHeight)")
    assert len(heights) == 32 and max(heights) - min(heights) <= 1, "two letters stand on one line"


def test_plates_are_told_apart_by_as_much_of_their_path_as_that_takes(page: Page) -> None:
    for plate, count in {"may/P1/Images": 3, "june/P1/Images": 4}.items():
        page.write(f"all/{plate}/A1.png", {"count": count})
        page.write(f"all/{plate}/A2.png", {"count": 2 * count})
    page.choose_folder(page.folder / "all")
    page.wait_for_status("4 of 4 done")
    assert [caption.split(":")[0] for caption in page.texts("figcaption")] == ["june/P1", "may/P1"]
    assert page.plate(1) == {"A1": "4.0 (1 field)", "A2": "8.0 (1 field)"}
    assert page.plate(2) == {"A1": "3.0 (1 field)", "A2": "6.0 (1 field)"}


def write_export(page: Page, *, channels: int, planes: int = 1) -> Path:
    """A Harmony export of two wells of a field each; a plane's count is its channel and its number, like 23."""
    for well in ("r02c03", "r02c04"):
        for channel in range(1, channels + 1):
            for plane in range(1, planes + 1):
                said = {"count": 10 * channel + plane}
                page.write(f"P1/Images/{well}f01p{plane:02d}-ch{channel}sk1fk1fl1.tiff", said)
    facts = "<Image><ChannelID>%d</ChannelID><ChannelName>%s</ChannelName><ChannelType>%s</ChannelType></Image>"
    names = [(1, "HOECHST 33342", "Fluorescence"), (2, "Brightfield high", "Brightfield"), (3, "DPC", "Phase")]
    page.write("P1/Images/Index.idx.xml", "".join(facts % name for name in names[:channels]).encode())
    return page.folder / "P1"


def test_of_a_harmony_export_the_channel_is_asked_for_and_the_transmitted_light_proposed(
    page: Page, service: Service
) -> None:
    page.drop(write_export(page, channels=3), page.write("other.png"))
    page.wait_for(lambda: page.find("#channels").is_displayed())
    assert not page.find("#course").is_displayed(), "nothing is under way"
    assert page.run("document.activeElement.id") == "channel"
    assert ("combobox", "Which channel is brightfield or phase?") in accessible(page)
    assert page.texts("#channel option") == [
        *("1 HOECHST 33342 (2 images)", "2 Brightfield high (2 images)", "3 DPC (2 images)")
    ]
    assert service.asked == [], "nothing starts before"
    page.find("#channels button").click()
    page.wait_for_status("3 of 3 done; 4 other images left out; skipped, not an image: 1, P1/Images/Index.idx.xml")
    assert page.plate() == {"B3": "21.0 (1 field)", "B4": "21.0 (1 field)"}
    assert not page.find("#channels").is_displayed()
    page.drop(page.folder / "P1")
    page.wait_for(lambda: page.find("#channels").is_displayed())
    page.find("#channels [type=reset]").click()
    page.wait_for_status("All of these images are left out")
    assert len(service.asked) == 3


@pytest.mark.parametrize(("pages", "count"), [("middle", "13.0 (1 field)"), ("all", "12.5 (4 fields)")])
def test_of_a_field_of_several_planes_what_is_taken_is_as_of_stacks(page: Page, pages: str, count: str) -> None:
    page.find(f"#page option[value={pages}]").click()
    page.choose_folder(write_export(page, channels=1, planes=4))
    page.wait_for(lambda: "skipped, not an image: 1, P1/Images/Index.idx.xml" in page.find("#status").text)
    assert not page.find("#channels").is_displayed(), "there is but one channel"
    assert page.plate() == {"B3": count, "B4": count}


def test_the_overlay_opens_and_closes_by_keyboard(page: Page, service: Service) -> None:
    page.choose(page.write("a.png"), page.write("b.png", b"not an image"), page.write("c.png", {"count": 30}))
    page.wait_for_status("3 of 3 done")
    page.run("rows.querySelector('button').focus()")
    asked = len(service.asked)
    press = ActionChains(page.browser).send_keys
    press(Keys.ENTER).perform()
    page.wait_for(lambda: page.find("#bench").is_displayed())
    page.run("document.getElementById('tab-bench').focus()")
    press(Keys.ARROW_RIGHT).perform()
    page.wait_for(lambda: page.find("#overlay").is_displayed())
    assert page.run("document.activeElement.id") == "tab-seen"
    assert page.find("#viewer-title").text == "a.png"
    assert page.run("[...document.querySelectorAll('#overlay img')].map(part => [part.naturalWidth, part.alt])") == [
        [80, "a.png: where cells were counted, brighter where there are more"],
        [80, "a.png: where it was seen that it is A172, brighter where more spoke for it"],
    ]
    assert page.texts("#facts div") == [
        "Cells in the image 12.0 90 % interval: 9.5 to 14.5 cells",
        "Lineage A172 90 % VERO6 10 %",
        "Does it belong to the training images? Yes, it looks like them.",
        "Magnification that of the training images",
        "Seen in 1 tile",
        "Models classifier@1, regressor@2",
        "Time read 2 ms, models 30 ms",
    ]
    assert page.find("#save").get_attribute("download") == "a-overlay.png"
    page.run("document.getElementById('close').focus()")
    press(Keys.ARROW_RIGHT).perform()
    page.wait_for(lambda: page.find("#viewer-title").text == "c.png" and page.find("#overlay").is_displayed())
    press(Keys.ESCAPE).perform()
    page.wait_for(lambda: not page.find("#viewer").is_displayed())
    assert page.run("document.activeElement.ariaLabel") == "Show c.png"
    press(Keys.ENTER).perform()
    page.wait_for(lambda: page.find("#overlay").is_displayed())
    drawn = [query["name"] for query in service.asked[asked:] if "overlay" in query]
    assert drawn == ["a.png", "c.png"]  # once each


def test_what_is_flagged_is_said_in_plain_words_with_the_reason(page: Page) -> None:
    reasons = "classifier@1: 1.5 times as far; regressor@2: 3.7 times as far"
    unlike = {"unfamiliar": True, "unfamiliar_reason": reasons, "lineage_unfamiliar": False, "count_unfamiliar": True}
    unknown = {"unfamiliar": None, "count_low": None, "timing": {"total_ms": 8885.0}, "magnification": "assumed"}
    page.choose(page.write("a.png", unlike), page.write("b.png", unknown))
    page.wait_for_status("2 of 2 done")
    page.find("#rows button").click()
    page.see_overlay()
    cells, lineage, belongs, *_ = page.texts("#facts div")
    assert cells == "Cells in the image 12.0 Do not rely on it. 90 % interval: 9.5 to 14.5 cells"
    assert lineage == "Lineage A172 90 % VERO6 10 %"
    told = "No: do not rely on the count. classifier@1: 1.5 times as far regressor@2: 3.7 times as far"
    assert belongs == f"Does it belong to the training images? {told}"
    page.find("#next").click()
    page.wait_for(lambda: page.find("#viewer-title").text == "b.png")
    cells, _, belongs, magnification, *_, time_s = page.texts("#facts div")
    assert cells == "Cells in the image 12.0 No interval is known."
    assert belongs.endswith("Not known: these models cannot tell.")
    assert magnification.endswith("taken to be that of the training images, since the pixel size is not known")
    assert time_s == "Time total 8.9 s"


UNLIKE_NAME = {"unfamiliar": True, "lineage_unfamiliar": True, "count_unfamiliar": False}
UNLIKE_BOTH = {"unfamiliar": True, "lineage_unfamiliar": True, "count_unfamiliar": True, "count": 1234.5}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([{}, {}], "All 2 images look like the training images."),
        ([{}, {"unfamiliar": None}], "This image looks like the training images."),
        ([{"unfamiliar": None}], "Whether these images belong to the training images is not known: "),
        (
            [{}, UNLIKE_NAME, UNLIKE_BOTH],
            "2 of 3 images do not belong to the training images: do not rely on the lineage of 2, and on the count of "
            "1, which hold 1,235 of the cells. Is the pixel size right, and is it brightfield or phase contrast? ",
        ),
        (
            [UNLIKE_NAME],
            "1 of 1 image does not belong to the training images: do not rely on the lineage of 1. Is the ",
        ),
    ],
)
def test_whether_images_belong_to_the_training_is_said(page: Page, said: list[dict[str, Any]], told: str) -> None:
    page.choose(*(page.write(f"{number}.png", one) for number, one in enumerate(said)))
    page.wait_for_status(f"{len(said)} of {len(said)} done")
    assert page.find("#unlike").text.startswith(told)
    assert (page.find("#unlike").get_attribute("class") == "notice") == ("do not rely" in told)


def test_fields_of_no_use_are_flagged_and_left_out_of_their_well(page: Page) -> None:
    files = {
        "B03_f1.png": {"count": 10, "quality": []},
        "B03_f2.png": {"count": 900, "quality": ["out_of_focus"]},
        "B03_f3.png": {"count": 0, "quality": ["empty"]},
        "B04_f1.png": {"count": 700, "quality": ["out_of_focus", "saturated"]},
        "C05_f1.png": {"count": 20},  # a service of before
    }
    page.choose(*(page.write(name, said) for name, said in files.items()))
    page.wait_for_status("5 of 5 done")
    left_out = "left out: out of focus or saturated"
    assert page.plate(1) == {
        "B3": f"5.0 (2 fields, 1 {left_out})", "B4": f"× (no value, 1 {left_out})", "C5": "20.0 (1 field)"
    }  # fmt: skip
    [ramp] = page.texts(".ramp")
    assert ramp.endswith("1–2 fields a well × no image could be used, or all are left out 2 fields " + left_out)
    chips = page.texts("#summary li")
    assert {"2 out of focus", "1 saturated", "1 empty"} <= set(chips)
    flagged = [
        "B03_f2.png B03 out of focus: left out of well values",
        "B03_f3.png B03 empty",
        "B04_f1.png B04 out of focus, saturated: left out of well values",
    ]
    assert page.texts("#rows .name") == ["B03_f1.png B03", *flagged, "C05_f1.png C05"]
    page.find("#flagged").click()
    assert page.texts("#rows tr:not([hidden]) .name") == flagged
    page.find("#rows tr:not([hidden]) button").click()
    page.wait_for(lambda: page.find("#facts").is_displayed())
    facts = page.texts("#facts div")
    assert "Is it of use? It is out of focus. It is left out of the value of its well." in facts
    page.run("document.getElementById('close').click()")
    header, *lines = page.download()
    assert [line[header.index("quality")] for line in lines] == [
        "", "out_of_focus", "empty", "out_of_focus saturated", ""
    ]  # fmt: skip


def test_a_plate_of_a_softer_microscope_is_told_as_one_and_its_wells_keep_their_values(page: Page) -> None:
    focus = [0.2, *(0.55 + 0.01 * n for n in range(1, 12))]
    for number, one in enumerate(focus, start=1):
        page.write(f"P1/A{number:02}.png", {"focus": one, "quality": ["out_of_focus"] if one < 0.6 else []})
        page.write(f"P2/A{number:02}.png", {"focus": one + 0.5, "quality": [] if number > 1 else ["out_of_focus"]})
    page.choose_folder(page.folder)
    page.wait_for_status("24 of 24 done")
    assert page.texts("#softer") == [
        "P1 is softer than what the model learned from (0.60 of its focus): 4 of its 12 images are as sharp as the "
        "others of it, and have their part in the values of wells."
    ]
    left_out = "× (no value, 1 left out: out of focus or saturated)"
    wells = {f"A{number}": "12.0 (1 field)" for number in range(2, 13)}
    assert page.plate(1) == page.plate(2) == {"A1": left_out} | wells
    assert "2 out of focus" in page.texts("#summary li")
    names = page.texts("#rows .name")
    assert names[0].endswith("/P1 · A01 out of focus: left out of well values")
    as_sharp = "as sharp as the others of its plate, which is softer than what the model learned from"
    assert names[1].endswith(f"/P1 · A02 {as_sharp}") and names[11].endswith("/P1 · A12")
    page.find("#rows tr:nth-child(2) button").click()
    page.wait_for(lambda: page.find("#facts").is_displayed())
    assert f"Is it of use? It is {as_sharp}." in page.texts("#facts div")
    page.run("document.getElementById('close').click()")
    header, *lines = page.download()
    assert [line[header.index("quality")] for line in lines].count("out_of_focus") == 2


def test_files_that_are_no_images_are_skipped_by_name(page: Page) -> None:
    names = ["x.pdf", "y.txt", "z.xml", "Thumbs.db"]
    page.drop(page.write("read me.txt", b"not an image"), page.write("a.png"), page.write("b.png", b"not an image"))
    page.wait_for_status("2 of 2 done, 1 failed; skipped, not an image: 1, read me.txt")
    assert page.texts("#rows .name") == ["a.png", "b.png"], "what should be an image has failed"
    for name in names:
        page.write(f"folder/{name}")
    page.drop(page.folder / "folder")
    told = "skipped, not an image: 4, folder/Thumbs.db, folder/x.pdf, folder/y.txt and 1 more"
    page.wait_for_status(f"No PNG, JPEG, TIFF or BMP images there; {told}")


NO_IMAGES = {"a.txt": b"words", "b.roi": b"Iout", "c.dat": b"\0" * 99, "d.bin": bytes(range(99))}


def test_what_the_page_takes_for_no_image_is_what_the_library_does(page: Page) -> None:
    faults = [f"{name}: {ImageFile(name, data).header.fault}" for name, data in NO_IMAGES.items()]
    images = [f"x: {ImageFile('x.czi', b'ZISRAWFILE').header.fault}", "x.tif: damaged, its pixels cannot be decoded"]
    assert page.run("arguments[0].map(fault => NO_IMAGE.test(fault))", faults + images) == [True] * 4 + [False] * 2


SEEN = """(() => {
  const image = document.querySelector(`#rows tr:nth-child(${arguments[0]}) .thumb img`);
  const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 64 });
  const drawn = canvas.getContext('2d', { willReadFrequently: true });
  drawn.drawImage(image, 0, 0, 64, 64);
  return [[16, 32], [48, 32]].map(place => drawn.getImageData(...place, 1, 1).data[0]);
})()"""


def test_thumbnails_of_tiffs_and_of_12_bits_in_16_are_seen(page: Page) -> None:
    """A dark half and a bright half, of grey values that the upper eight bits hardly tell apart."""
    halves_HW = np.repeat(np.array([[700, 900]], np.uint16), 60, axis=0).repeat(40, axis=1)
    flat_HW = halves_HW[:, ::-1].copy()
    tifffile.imwrite(page.folder / "a.tif", halves_HW)
    stack = np.stack([flat_HW, halves_HW, flat_HW])
    tifffile.imwrite(page.folder / "b.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    page.write("c.png", encode_png(halves_HW))
    page.choose(*(page.folder / name for name in ("a.tif", "b.tif", "c.png")))
    page.wait_for_status("3 of 3 done")
    page.wait_for(lambda: page.run("[...document.querySelectorAll('.thumb img')].every(image => image.complete)"))
    for number in (1, 2, 3):
        dark, bright = page.run(SEEN, number)
        assert dark < 20 and bright > 235, number


def test_what_cannot_be_drawn_is_said(page: Page, service: Service) -> None:
    file = page.write("a.png")
    page.choose(file)
    page.wait_for_status("1 of 1 done")
    file.write_bytes(b"something else")
    page.find("#rows button").click()
    page.wait_for(lambda: page.find("#drawing").text == "the file cannot be read; was it moved or changed?")
    assert not page.find("#overlay").is_displayed()


def test_the_table_for_spreadsheets_holds_all_answers_and_no_formulas(page: Page) -> None:
    page.choose(page.write("=a,B03.png", {"count": -0.5}), page.write("@b.png", b"not an image"))
    page.wait_for_status("2 of 2 done")
    header, *lines = page.download()
    assert header == [
        *("image", "lineage", "probability", "count", "count_low", "count_high", "interval_level", "unfamiliar"),
        *("lineage_unfamiliar", "count_unfamiliar", "quality", "focus"),
        *("classifier", "regressor", "error", "plate", "well"),
    ]
    said = [
        "A172",
        "0.9",
        "-0.5",
        "9.5",
        "14.5",
        "0.9",
        "false",
        "",
        "",
        "",
        "",
        "classifier@1",
        "regressor@2",
        "",
        "",
        "B03",
    ]
    wrong = "'@b.png: not a readable PNG, JPEG, TIFF or BMP image"
    assert sorted(lines) == [["'=a,B03.png", *said], ["'@b.png", *[""] * 13, wrong, "", ""]]


def test_a_run_can_be_cancelled_and_cleared(page: Page, service: Service) -> None:
    page.choose(page.write("first.png"))
    page.wait_for_status("1 of 1 done")
    service.go_on.clear()
    page.choose(*(page.write(f"{number}.png") for number in range(9)))
    page.wait_for_status("1 of 10 done")
    page.find("#cancel").click()
    assert page.find("#status").text == "Cancelled: 1 of 10 done"
    assert page.run("document.activeElement.id") == "csv"
    service.go_on.set()
    page.choose(page.write("second.png"))
    page.wait_for_status("2 of 2 done")
    assert page.texts("#rows .name") == ["first.png", "second.png"]
    page.find("#clear").click()
    assert page.texts("#rows tr") == []
    assert not page.find("#results").is_displayed()


def test_one_is_told_that_the_models_may_not_be_the_newest(page: Page, service: Service) -> None:
    service.problems = ["regressor@3 cannot be read"]
    page.browser.refresh()
    page.wait_for(lambda: page.find("#notice").is_displayed())
    assert page.find("#notice").text == "The models served here may not be the newest: regressor@3 cannot be read"


def fill(page: Page) -> None:
    """Every part that the page can show: maps, flags, an error, long names, a message of the service."""
    for column in range(1, 25):
        page.write(f"a plate/P{column}.png", {"count": column, "magnification": "assumed"})
    page.write("a plate/" + "long_name" * 12 + ".png", {"unfamiliar": True})
    page.write("a plate/z.png", b"not an image")
    page.choose_folder(page.folder / "a plate")
    page.wait_for_status("26 of 26 done")


def test_on_a_phone_nothing_is_wider_than_the_screen(page: Page) -> None:
    page.command("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    fill(page)
    assert page.run("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    page.run("rows.querySelector('button').click()")
    page.see_overlay()
    assert page.run("viewer.scrollWidth <= viewer.clientWidth && viewer.offsetWidth <= innerWidth")
    widths = page.run(
        "[...document.querySelectorAll('#overlay div')].map(part => part.offsetWidth / viewer.clientWidth)"
    )
    assert min(widths) > 0.98, "each part is as wide as the screen"


@pytest.mark.parametrize("width", [360, 500, 1280])
def test_the_figures_of_a_map_leave_room_in_their_wells(page: Page, width: int) -> None:
    page.command("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=1, mobile=False)
    for name, count in {"A1": 1234, "A2": 110, "B1": 56.7, "B2": 3}.items():
        page.write(f"plate/{name}.png", {"count": count, "unfamiliar": True, "count_unfamiliar": True})
    page.choose_folder(page.folder / "plate")
    page.wait_for_status("4 of 4 done")
    free = page.run(
        "[...document.querySelectorAll('.plate .well')].map(well => {"
        " const text = document.createRange(); text.setStart(well, 0); text.setEndBefore(well.querySelector('.away'));"
        " return well.offsetWidth - text.getBoundingClientRect().width; })"
    )
    assert len(free) == 4 and min(free) >= 6, "pixels"
    assert page.plate()["A1"] == "1,234* (1 field, unlike the training images)"


def test_a_picture_takes_most_of_the_room_there_is(page: Page) -> None:
    page.choose(page.write("a.png"))
    page.wait_for_status("1 of 1 done")
    page.find("#rows button").click()
    page.see_overlay()
    width, height = page.run("[$('overlay').offsetWidth / innerWidth, $('overlay').offsetHeight / innerHeight]")
    assert width > 0.9 or height > 0.6
    left, right = page.run(
        "[...document.querySelectorAll('#overlay img')].map(part => part.getBoundingClientRect().left)"
    )
    edges = page.run("[...document.querySelectorAll('#overlay div')].map(part => part.getBoundingClientRect().left)")
    assert left == edges[0] and right < edges[1] - 50, "each shows its own half"


CONTRASTS = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => rgba(colour).slice(0, 3).map(part => part / 255)
    .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [.2126, .7152, .0722][at], 0);
  const ground = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return rgba(colour)[3] === 255 ? colour : ground(element.parentElement);
  };
  const seen = {};
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data.trim()).join('');
    if (!text || !element.checkVisibility() || element.closest('[inert]')) continue;
    const pair = [light(getComputedStyle(element).color), light(ground(element))].sort((one, other) => other - one);
    seen[text] = Math.min(seen[text] ?? 21, (pair[0] + .05) / (pair[1] + .05));
  }
  return seen;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Page, service: Service, scheme: str) -> None:
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    service.problems = ["regressor@3 cannot be read"]
    fill(page)
    by_count = page.run(CONTRASTS)
    page.find("#by-lineage").click()
    by_lineage = page.run(CONTRASTS)
    assert {"cellnet", "Choose images", "24.0", "failed", "The API, for programs"} <= set(by_count)
    assert "A172" in by_lineage
    assert [(text, ratio) for seen in (by_count, by_lineage) for text, ratio in seen.items() if ratio < 4.5] == []
    assert (page.run("getComputedStyle(document.body).backgroundColor") == "rgb(15, 22, 29)") == (scheme == "dark")


CONTROLS = {"button", "link", "textbox", "searchbox", "spinbutton", "combobox", "checkbox", "radio", "progressbar"}
CONTROLS |= {"table", "dialog", "region", "radiogroup", "group", "columnheader", "rowheader", "image"}


def test_everything_has_a_name_for_a_screen_reader(page: Page, service: Service) -> None:
    fill(page)
    page.run("rows.scrollIntoView()")  # rows beyond the screen are not drawn, nor told
    page.wait_for(lambda: ("button", "Show a plate/P1.png") in accessible(page))
    nodes = accessible(page)
    assert [role for role, name in nodes if role in CONTROLS and not name] == []
    names = set(nodes)
    assert {
        ("button", "Choose images"),
        ("button", "Choose a folder"),
        ("spinbutton", "Pixel size, µm (if known)"),
        ("combobox", "Of stacks"),
        ("progressbar", "Images done"),
        ("radio", "cells"),
        ("searchbox", "Find"),
        ("checkbox", "only flagged or failed"),
        ("button", "Show a plate/P1.png"),
        ("table", "Images"),
        ("table", "a plate: mean cells per field, by well"),
        ("columnheader", "Lineage"),
        ("rowheader", "A"),
        ("heading", "Images"),
    } <= names
    titles = page.run(
        "[...document.querySelectorAll(':is(h1, h2, h3, h4)')].map(title => title.tagName + title.innerText)"
    )
    assert titles == ["H1cellnet", "H2Look at these first", "H2Plate map", "H2Images", "H2"]
    assert page.texts("#spoken") == ["26 of 26 done, 1 failed"]
    page.find("#rows button").click()
    page.see_overlay()
    assert ("dialog", page.find("#viewer-title").text) in accessible(page)


def accessible(page: Page) -> list[tuple[str, str]]:
    """Role and name of all that a screen reader is told of."""
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]


FOUND = [{"x": 100, "y": 60, "probability": 0.9}, {"x": 200, "y": 150, "probability": 0.4}]


def bench(page: Page, name: str) -> Any:
    return page.find(f"[data-bench={name}]")


def places(page: Page) -> list[list[float]]:
    """The cells on the frame that is open."""
    return page.run("label.points.map(({ x, y }) => [x, y])")


def click_in_frame(page: Page, *corners: tuple[float, float]) -> None:
    """Press at the first place of the frame, which is 400 × 300 pixels and fitted in, go to the others and let go."""
    wide, high = (bench(page, "canvas").size[side] for side in ("width", "height"))
    scale = min(wide / 400, high / 300)
    canvas = bench(page, "canvas")
    mouse = ActionChains(page.browser, duration=0)
    for n, (x, y) in enumerate(corners):
        mouse.move_to_element_with_offset(canvas, round((x - 200) * scale), round((y - 150) * scale))
        if not n:
            mouse.click_and_hold()
    mouse.release().perform()


def test_cells_are_added_and_removed_by_the_mouse_and_the_correction_is_a_table(page: Page) -> None:
    page.choose(page.write("a.tif", {"count": 2.3, "points": FOUND}))
    page.wait_for_status("1 of 1 done")
    page.open_bench()
    assert bench(page, "count").get_attribute("value") == "2.3"
    assert not page.find("#keep").is_enabled() and page.find("#accept").is_enabled()
    page.find("[data-tool=cells]").click()
    click_in_frame(page, (300, 200))
    click_in_frame(page, (200, 150))
    [kept, added] = places(page)
    assert kept == [100, 60] and added == pytest.approx([300, 200], abs=1)
    assert page.texts("[data-bench=spoken]") == ["Removed a cell. 2 cells."]
    bench(page, "undo").click()
    assert len(places(page)) == 3 and bench(page, "count").get_attribute("value") == "3"
    bench(page, "redo").click()
    page.find("[data-bench=lineage] option[value='none of these']").click()
    page.find("#by").send_keys("Ada")
    page.find("#why").send_keys("two were debris")
    page.find("#keep").click()
    assert page.texts("#rows .edited") == ["corrected: none of these, 2 cells"]
    assert not page.find("#keep").is_enabled(), "it is said"
    page.find("#close").click()
    header, line = page.download("#corrections", "corrections.csv")
    told = dict(zip(header, line, strict=True))
    assert {name: told[name] for name in ("image", "sha256", "lineage", "count", "by", "why", "unusable")} == {
        **{"image": "a.tif", "sha256": digest_of_pixels(RAMP), "lineage": "none of these", "count": "2"},
        **{"by": "Ada", "why": "two were debris", "unusable": ""},
    }
    assert told["points"] == f"100 60; {added[0]:g} {added[1]:g}"
    assert (told["seen"], told["seen_lineage"], told["seen_count"]) == ("classifier@1 regressor@2", "A172", "2.3")
    page.open_bench()
    assert len(places(page)) == 2, "what was kept is there again"


def test_a_frame_is_corrected_by_keys_alone(page: Page) -> None:
    page.choose(page.write("a.tif", {"count": 2.0, "points": FOUND}))
    page.wait_for_status("1 of 1 done")
    page.run("rows.querySelector('button').focus()")
    press = ActionChains(page.browser).send_keys
    press(Keys.ENTER).perform()
    page.wait_for(lambda: page.find("#bench").is_displayed())
    page.run("document.querySelector('[data-bench=canvas]').focus()")
    said = lambda: page.texts("[data-bench=spoken]")  # noqa: E731
    press("n").perform()
    assert said() == ["Cell 1 of 2, 90 %"]
    press(Keys.ENTER).perform()
    assert said() == ["Removed a cell. 1 cell."] and places(page) == [[200, 150]]
    press("n", Keys.DELETE, "n").perform()
    press(*[Keys.ARROW_RIGHT] * 12, Keys.SPACE).perform()
    assert said() == ["Added a cell. 2 cells."]
    x, y = places(page)[1]
    assert x > 230 and y == 150
    ActionChains(page.browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    assert said() == ["Undone. 1 cell."]
    press(*[Keys.ARROW_DOWN] * 3, "x", *[Keys.ARROW_LEFT] * 30, *[Keys.ARROW_UP] * 12, "x").perform()
    assert said() == ["Region left out. 0 cells."], "the one cell is in it"
    assert page.run("label.regions.length") == 1


def test_what_lies_in_regions_counts_or_not_and_a_part_is_not_kept_for_the_frame(page: Page) -> None:
    page.choose(page.write("a.tif", {"count": 2.0, "points": FOUND}))
    page.wait_for_status("1 of 1 done")
    page.open_bench()
    around = [(70, 30), (130, 30), (130, 90), (70, 90)]
    page.find("[data-tool=count]").click()
    click_in_frame(page, *around)
    assert bench(page, "count").get_attribute("value") == "1"
    page.find("#keep").click()
    assert page.find("#kept").text == "The count of a part is none of the frame: nothing is kept."
    bench(page, "regions").click()
    assert bench(page, "count").get_attribute("value") == "2"
    page.find("[data-tool=leave]").click()
    click_in_frame(page, *around)
    assert bench(page, "count").get_attribute("value") == "1"
    page.find("#keep").click()
    page.find("#close").click()
    header, line = page.download("#corrections", "corrections.csv")
    assert dict(zip(header, line, strict=True))["points"] == "200 150"


def test_an_answer_is_accepted_and_a_frame_is_of_no_use(page: Page) -> None:
    page.choose(page.write("a.tif", {"count": 2.3}), page.write("b.tif"))
    page.wait_for_status("2 of 2 done")
    page.open_bench()
    assert page.find("#kept").text == "No counter here knows places: add the cells, or say their number."
    page.find("#accept").click()
    page.find("#next").click()
    page.wait_for(lambda: page.find("#viewer-title").text == "b.tif" and page.find("#bench").is_displayed())
    page.find("[data-bench=unusable] option[value=focus]").click()
    page.find("#keep").click()
    assert page.texts("#rows .edited") == ["accepted: A172, 2.3 cells", "corrected: not usable (focus)"]
    page.find("#close").click()
    header, *lines = page.download("#corrections", "corrections.csv")
    told = [dict(zip(header, line, strict=True)) for line in lines]
    assert [(one["accepted"], one["unusable"], one["count"], one["points"]) for one in told] == [
        ("yes", "", "", ""),
        ("", "focus", "", ""),
    ]


def test_all_grey_values_are_there_and_are_seen_as_the_eye_wants_them(page: Page) -> None:
    page.choose(page.write("a.tif", {"count": 0.0, "points": []}))
    page.wait_for_status("1 of 1 done")
    page.open_bench()
    seen = """(() => {
      const size = { width: 400, height: 300 }, copy = Object.assign(document.createElement("canvas"), size);
      const pen = copy.getContext("2d", { willReadFrequently: true });
      pen.drawImage(document.querySelector("[data-bench=frame]"), 0, 0);
      return [5, 150, 295].map(y => pen.getImageData(200, y, 1, 1).data[0]);
    })()"""
    page.wait_for(lambda: page.run(seen)[2] > 200)
    dark, middle, bright = page.run(seen)
    assert dark < 15 < 100 < middle < 155 and bright > 240, "from the darkest to the brightest that there is"
    page.run("Object.assign(document.querySelector('[data-bench=gamma]'), { value: 3 }).oninput()")
    page.wait_for(lambda: page.run(seen)[1] > 190)


def test_the_other_frames_of_a_well_are_beside_it(page: Page) -> None:
    page.choose(*(page.write(f"B03_f{number}.tif", {"count": number}) for number in (1, 2)), page.write("C04_f1.tif"))
    page.wait_for_status("3 of 3 done")
    page.open_bench()
    assert page.texts("#beside button") == ["B03_f2.tif 2.0 cells"]
    page.find("#beside button").click()
    page.wait_for(lambda: page.find("#viewer-title").text == "B03_f2.tif" and page.find("#bench").is_displayed())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_workbench_can_be_read_and_is_told_to_a_screen_reader(page: Page, scheme: str) -> None:
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.choose(page.write("a.tif", {"count": 2.0, "points": FOUND}))
    page.wait_for_status("1 of 1 done")
    page.open_bench()
    nodes = accessible(page)
    assert [role for role, name in nodes if role in CONTROLS | {"tab", "slider", "Canvas"} and not name] == []
    assert {("tab", "Correct"), ("tab", "What was seen"), ("spinbutton", "Cells"), ("combobox", "Lineage")} <= set(
        nodes
    )
    assert ("application", "The frame with its cells") in nodes
    faint = {text: ratio for text, ratio in page.run(CONTRASTS).items() if ratio < 4.5}
    assert not faint


def test_on_a_phone_the_workbench_is_as_wide_as_the_screen(page: Page) -> None:
    page.command("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    page.choose(page.write("a.tif", {"count": 2.0, "points": FOUND}))
    page.wait_for_status("1 of 1 done")
    page.run("rows.querySelector('button').click()")
    page.wait_for(lambda: page.find("#bench").is_displayed())
    assert page.run("viewer.scrollWidth <= viewer.clientWidth && viewer.offsetWidth <= innerWidth")
    assert page.run("document.querySelector('[data-bench=canvas]').clientWidth / innerWidth") > 0.85
    page.command("Emulation.setDeviceMetricsOverride", width=740, height=360, deviceScaleFactor=1, mobile=True)
    inside = (
        "(() => { const [frame, room] = ['frame', 'canvas'].map(name => document.querySelector(`[data-bench=${name}]`)"
        ".getBoundingClientRect()); return frame.left >= room.left - 1 && frame.right <= room.right + 1"
        " && (Math.abs(frame.height - room.height) < 2 || Math.abs(frame.width - room.width) < 2); })()"
    )
    page.wait_for(lambda: page.run(inside))  # fitted into the room that there is now


def test_where_there_is_a_bank_what_is_said_is_saved_in_it_with_the_image(page: Page, service: Service) -> None:
    service.saves = True
    file = page.write("plate 1/B03_f1.tif", {"count": 2.0, "points": FOUND})
    page.choose_folder(file.parent)
    page.wait_for_status("1 of 1 done")
    page.open_bench()
    page.find("[data-tool=cells]").click()
    click_in_frame(page, (200, 150))
    page.find("#by").send_keys("Ada")
    page.find("#keep").click()
    page.wait_for(lambda: page.find("#kept").text.startswith("Saved in the bank, entry 1, which has the image since."))
    assert page.find("#kept").text.endswith("both are kept. Bob: 14 cells.")
    [label] = service.labels
    assert label == {
        **{"name": "plate 1/B03_f1.tif", "bytes": file.read_bytes(), "points": [[100, 60]], "by": "Ada", "why": ""},
        **{"plate": "plate 1", "well": "B03"},
        "seen": {"versions": ["classifier@1", "regressor@2"], "lineage": "A172", "count": 2},
    }
    assert page.texts("#rows .edited") == ["corrected: 1 cell (entry 1)"]


def test_what_people_said_of_an_image_before_is_told_when_it_is_opened(page: Page, service: Service) -> None:
    service.saves = True
    said = {"at": "2026-11-29T09:00:00Z", "lineage": None, "count": None, "unusable": None}
    service.others = [said | {"by": "Ada", "count": 12.0, "lineage": "A172"}, said | {"by": "Bob", "unusable": "focus"}]
    page.choose(page.write("a.tif", {"count": 2.0, "points": FOUND}))
    page.wait_for_status("1 of 1 done")
    page.open_bench()
    page.wait_for(lambda: page.find("#kept").text == "In the bank. Ada: A172, 12 cells; Bob: of no use (focus).")
    assert service.recalled == [digest_of_pixels(RAMP)]


@pytest.mark.parametrize(
    "why",
    [
        "this API key may not label; its line needs the scope: NAME label KEY",
        "the bank takes no corrections now: s3://lab/bank may not be written",
    ],
)
def test_what_is_not_saved_is_kept_here_and_said(page: Page, service: Service, why: str) -> None:
    service.saves, service.refuses = True, why
    page.choose(page.write("a.tif", {"count": 2.0, "points": FOUND}))
    page.wait_for_status("1 of 1 done")
    page.open_bench()
    page.find("#accept").click()
    page.wait_for(lambda: page.find("#kept").text.startswith(f"Not saved: {why}"))
    assert page.find("#kept").text.endswith("It is kept here. Download the corrections to put them into a bank.")
    assert page.texts("#rows .edited") == ["accepted: A172, 2.0 cells"] and page.find("#corrections").is_enabled()


def test_what_teaches_most_is_listed_first_with_why_and_opens_in_the_workbench(page: Page, service: Service) -> None:
    service.saves = True
    usual = {"probabilities": {"A172": 0.99, "VERO6": 0.01}, "count_low": 11.0, "count_high": 13.0}
    odd = {
        "E05": {"unfamiliar": True},
        "E06": {"probabilities": {"A172": 0.55, "VERO6": 0.45}},
        "E07": {"count": 40.0, "count_low": 12.0, "count_high": 90.0},
    }
    wells = {f"{row}{column:02}": usual for row in "BCD" for column in range(1, 5)} | {
        well: usual | more for well, more in odd.items()
    }
    for well, answer in wells.items():
        page.write(f"P1/{well}.png", answer)
    page.choose_folder(page.folder / "P1")
    page.wait_for_status("15 of 15 done")
    listed = page.texts("#firsts li")
    assert len(listed) == 10 and [text for text in listed if "random: for scoring" in text] == listed[-1:]
    said = {text.split(".png")[0]: text.split(" · ")[1] for text in listed}
    assert next(iter(said)) == "E05" and said["E05"] == "unlike the training images"
    assert said["E06"] == "A172 55 %, or VERO6 45 %" and said["E07"] == "count 40, could be 12 to 90"
    assert {"E05", "E06", "E07"} == {
        name for name, why in list(said.items())[:-1] if why != "for the range of what was answered"
    }
    assert page.find("#first").rect["y"] < page.find("#plates").rect["y"]
    page.find("#firsts li:first-child button").click()
    page.wait_for(lambda: page.find("#bench").is_displayed())
    assert page.find("#viewer-title").text.endswith("E05.png")
    page.find("#accept").click()
    page.wait_for(lambda: service.labels)
    assert service.labels[0]["drawn"] == "chosen" and service.labels[0]["accepted"]
    assert page.texts("#firsts li") == listed[1:], "nothing is left to say of it"
    page.find("#close").click()
    page.choose_folder(page.folder / "P1")
    page.wait_for_status("30 of 30 done")
    again = page.texts("#firsts li")
    assert len(again) == 10 and "E05.png" not in {text.split(" ")[0] for text in again}
    page.run("[...rows.rows].find(row => kept.has(row)).querySelector('button').click()")
    page.wait_for(lambda: page.find("#accept").is_enabled() and page.find("#bench").is_displayed())
    page.find("#accept").click()
    page.wait_for(lambda: len(service.labels) == 2)
    assert service.labels[1]["drawn"] == "chosen", "as it was when it was listed"
    page.find("#close").click()
    page.find("#clear").click()
    assert not page.find("#first").is_displayed()


def test_when_all_that_was_listed_is_said_the_next_are_listed(page: Page) -> None:
    for number in range(24):
        page.write(f"P1/{number}.png", {"count": number})
    page.choose_folder(page.folder / "P1")
    page.wait_for_status("24 of 24 done")
    before = page.texts("#firsts li")
    page.run(
        "[...listed.keys()].slice(1).forEach(row => kept.set(row, { record: { drawn: 'chosen' } })) ?? showFirst()"
    )
    assert page.texts("#firsts li") == before[:1]
    page.run("kept.set([...listed.keys()][0], { record: { drawn: 'random' } }) && showFirst()")
    after = page.texts("#firsts li")
    assert len(after) == 10 and not {text.split(" ")[0] for text in after} & {text.split(" ")[0] for text in before}


def test_cells_of_an_image_are_asked_for_once_however_often_it_is_opened(page: Page, service: Service) -> None:
    names = [f"{number}.tif" for number in range(5)]
    page.choose(*(page.write(name, {"count": 2.0, "points": FOUND}) for name in names))
    page.wait_for_status("5 of 5 done")
    for row in (1, 2, 3, 4, 5, 1):
        page.open_bench(row)
        page.wait_for(lambda: len(places(page)) == 2)
        page.find("#close").click()
    assert [one["name"] for one in service.asked if "points" in one] == names


def test_of_a_few_images_no_order_is_made(page: Page) -> None:
    for number in range(11):
        page.write(f"few/{number}.png")
    page.choose_folder(page.folder / "few")
    page.wait_for_status("11 of 11 done")
    assert not page.find("#first").is_displayed()
