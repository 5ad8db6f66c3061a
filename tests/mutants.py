"""Bodies that are nearly right: images of every format with bytes changed, cut, doubled or swapped."""

import io
from collections.abc import Iterator

import cv2
import numpy as np
import PIL.Image

FORMS = ("multipart/form-data; boundary=b", "multipart/form-data", "application/json", "image/png", "", "text/plain")


def seeds(side: int = 200) -> list[bytes]:
    """Images of drawn noise, in every format that is read."""
    rng = np.random.default_rng(0)
    grey_HW = cv2.GaussianBlur(rng.integers(0, 256, (side, side), np.uint8), (0, 0), 3)
    deep_HW = grey_HW.astype(np.uint16) * 200
    colour_HW3 = np.stack([grey_HW, grey_HW // 2, 255 - grey_HW], -1)
    made = [cv2.imencode(suffix, grey_HW)[1].tobytes() for suffix in (".png", ".jpg", ".tif", ".bmp")]
    made += [cv2.imencode(suffix, deep_HW)[1].tobytes() for suffix in (".png", ".tif")]
    made += [cv2.imencode(suffix, colour_HW3)[1].tobytes() for suffix in (".png", ".jpg")]
    made.append(cv2.imencode(".tif", grey_HW.astype(np.float32))[1].tobytes())
    made.append(cv2.imencodemulti(".tiff", [grey_HW, grey_HW[::-1]])[1].tobytes())
    palette = io.BytesIO()
    PIL.Image.fromarray(grey_HW).convert("P").save(palette, "PNG")
    return [*made, palette.getvalue()]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The same, a little wrong; headers more often than the rest."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not found:
            break
        place = int(rng.integers(min(len(found), 200) if rng.random() < 0.6 else len(found)))
        match int(rng.integers(6)):
            case 0:
                found[place] ^= 1 << int(rng.integers(8))
            case 1:
                found[place : place + 4] = rng.integers(0, 256, 4, np.uint8).tobytes()
            case 2:
                found[place : place + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"][int(rng.integers(3))]
            case 3:
                del found[place:]
            case 4:
                del found[place : place + int(rng.integers(1, 50))]
            case 5:
                found[place:place] = found[place : place + int(rng.integers(1, 50))]
    return bytes(found)


def requests(n: int, *, seed: int = 0) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """So many requests to POST: path with query, headers and body; one in four is a form, itself a little wrong."""
    rng, images = np.random.default_rng(seed), seeds()
    queries = (
        "",
        "?page=all",
        "?page=middle",
        "?page=2",
        "?format=csv",
        "?pixel_um=0.5",
        "?pixel_um=1e308",
        "?name=%00",
    )
    for _ in range(n):
        body = images[int(rng.integers(len(images)))]
        if rng.random() < 0.9:
            body = mutated(body, rng)
        kind = FORMS[int(rng.integers(len(FORMS)))]
        if rng.random() < 0.25:
            kind = FORMS[0]
            head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
            body = (head + body + b"\r\n") * int(rng.integers(1, 4)) + b"--b--\r\n"
            if rng.random() < 0.5:
                body = mutated(body, rng)
        yield "/v1/predict" + queries[int(rng.integers(len(queries)))], {"Content-Type": kind}, body
