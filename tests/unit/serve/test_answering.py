"""Which thread and which model an image comes to, and that no image is another's problem."""

import asyncio
import contextlib
import io
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import cellnet.images.file
from cellnet.images import apart
from cellnet.images.file import ImageFile, encode_png
from cellnet.registry.registry import Registry
from serve.answering import Answerer
from serve.batching import MOST_TILES
from serve.limits import Limits
from tests.factories import SIDE, even_png, noise, publish
from tests.unit.serve.kitchen import Held, Kitchen


def stack(*sizes: tuple[int, int]) -> bytes:
    """A TIFF of pages of these heights and widths."""
    pages = [PIL.Image.fromarray(np.arange(h * w, dtype=np.uint8).reshape(h, w)) for h, w in sizes]
    file = io.BytesIO()
    pages[0].save(file, format="TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()


def tiff_of(image_HW: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image_HW).save(file, format="TIFF")
    return file.getvalue()


def asked(kitchen: Kitchen, *requests: dict, held: Held | None = None) -> list[httpx.Response]:
    """Answers to requests: of the first, which may be held, and of the others together."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(kitchen.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://cellnet") as client:
            first = asyncio.create_task(client.post("/v1/predict", **requests[0]))
            if held:
                await asyncio.to_thread(held.inside.acquire)
            others = [asyncio.create_task(client.post("/v1/predict", **request)) for request in requests[1:]]
            if held:
                await asyncio.sleep(0.2)
                held.go.set()
            said = list(await asyncio.gather(first, *others))
            await asyncio.gather(*kitchen.answerer._shadows)
            return said

    return asyncio.run(ask())


def test_a_frame_that_its_counter_cannot_cut_is_its_own_problem_alone(registry: Registry, kitchen: Callable) -> None:
    publish(registry, "count", name="regressor-A172", side=2 * SIDE)
    held = Held()
    service = kitchen(wait=held)
    first, bad, good = asked(
        service, {"content": even_png(grey=200)}, {"content": even_png()}, {"content": even_png(grey=200)}, held=held
    )
    assert (bad.status_code, bad.headers["content-type"]) == (422, "application/problem+json")
    assert bad.json()["detail"].startswith("image: ")
    assert [one.json()["predictions"][0]["count"] for one in (first, good)] == [1, 1]
    assert service.shelf.champions.classifier.model.batches == [1, 2], "the bad one and the good one were together"


def test_a_file_of_very_many_pages_is_refused_before_all_are_counted(
    kitchen: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cellnet.images.tiff, "MOST_PAGES", 5)
    monkeypatch.setattr(apart, "is_plain", lambda image: True)  # read in this process, which was told so
    data = stack(*[(SIDE, SIDE)] * 7)
    for page in ("middle", "all", "2"):
        [said] = asked(kitchen(), {"content": data, "params": {"page": page}})
        assert said.status_code == 422 and "holds over 5 pages; save it in parts" in said.json()["detail"]


def test_the_megapixels_of_a_page_are_bounded_not_only_those_of_the_first(kitchen: Callable) -> None:
    service = kitchen(limits=Limits(megapixels=0.002))
    data = stack((SIDE, SIDE), (3 * SIDE, 3 * SIDE))
    good, bad = (asked(service, {"content": data, "params": {"page": page}})[0] for page in (1, 2))
    assert good.status_code == 200
    assert (
        bad.status_code == 422
        and "image: 0.0 megapixels are more than the 0.002 that are taken here" in bad.json()["detail"]
    )
    service = kitchen(limits=Limits(megapixels=0.01))  # of the 0.5 µm that the models see, the page is four times that
    [bad] = asked(service, {"content": data, "params": {"page": 2, "pixel_um": 1.0}})
    assert bad.status_code == 422 and "it would be enlarged to 0.0 megapixels" in bad.json()["detail"]


def test_an_image_that_its_pixel_size_would_blow_up_is_refused(kitchen: Callable) -> None:
    service = kitchen(limits=Limits(megapixels=0.01))
    good, bad = (
        asked(service, {"content": even_png(80, 80), "params": {"pixel_um": um}})[0] for um in (0.5, 1.5)
    )  # the models see 0.5 µm a pixel
    assert good.status_code == 200
    assert bad.status_code == 422
    assert "image: at 1.5 µm a pixel it would be enlarged to 0.1 megapixels" in bad.json()["detail"]


@pytest.mark.parametrize("params", [{}, {"pixel_um": 1.0}])
def test_large_images_wait_for_each_other_and_nobody_for_them(
    kitchen: Callable, monkeypatch: pytest.MonkeyPatch, params: dict
) -> None:
    monkeypatch.setattr("serve.answering.SMALL", 2 * SIDE * SIDE)
    held = Held()
    service = kitchen(wait=held)

    async def ask() -> None:
        transport = httpx.ASGITransport(service.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://cellnet") as client:
            side = 2 * SIDE if not params else SIDE
            large = asyncio.create_task(client.post("/v1/predict", content=even_png(side, side), params=params))
            await asyncio.to_thread(held.inside.acquire)
            service.wait = lambda: None
            small = await client.post("/v1/predict", content=even_png())
            assert small.status_code == 200 and not large.done()
            held.go.set()
            assert (await large).json()["predictions"][0]["tiles"] == 4

    asyncio.run(ask())


def test_a_shadow_does_not_look_at_what_others_would_wait_for(registry: Registry, kitchen: Callable) -> None:
    publish(registry, "count", alias="challenger")
    service = kitchen(challenge="shadow")
    small, large = asked(service, {"content": even_png()}, {"content": even_png(5 * SIDE, 5 * SIDE)})
    assert small.status_code == large.status_code == 200
    assert service.figure("cellnet_shadow_missed_total", reason="large") == 1


def test_a_challenger_of_a_lineages_counter_answers_for_that_lineage_alone(
    registry: Registry, kitchen: Callable
) -> None:
    publish(registry, "count", name="regressor-A172")
    publish(registry, "count", name="regressor-A172", alias="challenger")
    dark, bright = asked(kitchen(challenge=1.0), {"content": even_png()}, {"content": even_png(grey=200)})
    refs = [one.json()["predictions"][0]["models"]["regressor"] for one in (dark, bright)]
    assert refs == ["regressor-A172@2", "regressor@1"]
    service = kitchen(challenge="shadow")
    dark, bright = asked(service, {"content": even_png()}, {"content": even_png(grey=200)})
    refs = [one.json()["predictions"][0]["models"]["regressor"] for one in (dark, bright)]
    assert refs == ["regressor-A172@1", "regressor@1"]
    assert service.figure("cellnet_shadow_cells_count", model="regressor-A172@2") == 1, "of the one A172"


def test_images_that_are_not_usable_are_counted_however_they_come(kitchen: Callable) -> None:
    service = kitchen()
    form = [("images", ("a.png", even_png())), ("images", ("b.png", b"none")), ("images", ("c.png", b"none"))]
    alone, among = asked(service, {"content": b"none"}, {"files": form})
    assert (alone.status_code, among.status_code) == (422, 200)
    assert service.figure("cellnet_images_total", outcome="not usable") == 3
    assert service.figure("cellnet_images_total", outcome="answered") == 1


def test_images_of_no_use_are_flagged_and_counted_once_whatever_models_say_so(kitchen: Callable) -> None:
    service = kitchen()
    grain_HW = np.random.default_rng(0).normal(0, 3, (SIDE, SIDE))
    lit_HW = np.clip(100 + 80 * (np.indices((SIDE, SIDE)).sum(0) // 8 % 2) + grain_HW, 0, 170).astype(np.uint8)
    flat, lit = asked(service, {"content": even_png()}, {"content": encode_png(lit_HW)})
    assert [one.json()["predictions"][0]["quality"] for one in (flat, lit)] == [["empty"], ["saturated"]]
    assert service.figure("cellnet_quality_total", flag="empty") == 1
    assert service.figure("cellnet_quality_total", flag="saturated") == 1
    assert service.figure("cellnet_quality_total", flag="out_of_focus") == 0


def test_the_time_of_a_large_image_begins_with_its_header(kitchen: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.answering.SMALL", 0)
    [said] = asked(kitchen(), {"content": even_png()})
    timing = said.json()["predictions"][0]["timing"]
    assert timing["total_ms"] == pytest.approx(timing["read_ms"] + timing["models_ms"], abs=0.02)
    assert timing["read_ms"] > 0


def test_a_form_whose_charset_is_none_is_refused(kitchen: Callable) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\nx\r\n--B--\r\n'
    kind = "multipart/form-data; boundary=B; charset=undefined"
    [said] = asked(kitchen(), {"content": body, "headers": {"content-type": kind}})
    assert said.status_code == 422 and "the form is not readable" in said.json()["detail"]


def test_a_large_image_of_a_form_needs_no_room_on_the_disk(
    kitchen: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    large = tiff_of(noise(1100, 1100))
    assert len(large) > 1e6, "more than starlette keeps in memory"
    [said] = asked(kitchen(), {"files": [("images", ("a.tif", large))]})
    assert said.status_code == 200 and said.json()["predictions"][0]["image"] == "a.tif"


@pytest.mark.parametrize("where", ["read", "computed", "large"])
def test_a_thread_that_does_not_come_back_is_found_though_every_request_left_in_time(
    kitchen: Callable, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("serve.answering.STUCK_S", 0.0)
    held = Held()
    service = kitchen(wait=held if where != "read" else lambda: None, limits=Limits(seconds=0.05))
    if where == "large":
        monkeypatch.setattr("serve.answering.SMALL", 0)
    decode = ImageFile.decode
    if where == "read":
        monkeypatch.setattr(ImageFile, "decode", lambda image, **options: held() or decode(image, **options))
    answerer: Answerer = service.answerer
    answerer.check()
    answers = asked(service, *[{"content": even_png()}] * 3)
    assert [one.status_code for one in answers] == [504] * 3
    time.sleep(0.1)  # twice the time of a request
    with pytest.raises(RuntimeError, match="an image has been read or computed for"):
        answerer.check()
    held.go.set()
    assert eventually(lambda: answerer.check() is None)


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold without raising."""
    for _ in range(2000):
        with contextlib.suppress(RuntimeError):
            if holds():
                return True
        time.sleep(0.01)
    return False


def test_a_thread_that_computes_a_large_image_for_long_shows_that_it_is_alive(kitchen: Callable) -> None:
    signs: list[float] = []
    service = kitchen(wait=lambda: signs.append(service.answerer._small._step_began))
    asked(service, {"content": even_png(8 * SIDE, 8 * SIDE)})
    assert len(set(signs)) == 2 * 64 / MOST_TILES, "one for each batch of tiles, of both models"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pages", "pixels"])
def test_what_may_be_slow_is_read_by_the_process_that_can_be_ended(
    kitchen: Callable, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    reader = apart.Process()
    monkeypatch.setattr(apart, "_process", lambda: reader)
    rough = noise(1500, 1500)
    data = stack((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE)) if what == "pages" else encode_png(rough)
    service = kitchen()
    try:
        [good] = asked(service, {"content": data, "params": {"page": "middle"} if what == "pages" else {}})
        assert good.status_code == 200 and reader.pid
        os.kill(reader.pid, signal.SIGSTOP)  # a decoder that hangs
        reader._socket.settimeout(0.1)
        bad, small = asked(service, {"content": data, "params": {"page": "middle"}}, {"content": even_png()})
        assert (bad.status_code, small.status_code) == (422, 200)
        assert "takes over 20 s to read" in bad.json()["detail"]
        [again] = asked(service, {"content": data, "params": {"page": "middle"}})
        assert again.status_code == 200
    finally:
        reader.close()
