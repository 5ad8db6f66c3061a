"""The HTTP interface: routes over the models of a shelf. Knows nothing of Ray."""

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from cellnet.version import number
from serve.answering import Answerer
from serve.http.keys import Key
from serve.http.labels import Correct, Recall, add_labels
from serve.http.middleware import Surroundings
from serve.http.pages import add_pages
from serve.http.pixels import PIXELS, add_pixels
from serve.http.predict import Draw, Find, add_predict
from serve.http.problems import add_problems
from serve.http.state import Texts, add_edge, add_state
from serve.v2.inference import add_inference
from serve.v2.tensors import HEADER

EXPOSED: Final = ("Retry-After", "Cellnet-Models", "X-Request-ID", HEADER, *PIXELS)
"""Headers of answers that web pages of others may read."""


def make_api(
    answerer: Answerer,
    *,
    keys: Sequence[Key] = (),
    origins: Sequence[str] = (),
    hosts: Sequence[str] = (),
    proxies: Sequence[str] | None = None,
    draw: Draw | None = None,
    find: Find | None = None,
    correct: Correct | None = None,
    recall: Recall | None = None,
    texts: Texts | None = None,
) -> FastAPI:
    """The application over the models of an answerer.

    `keys`: the API keys; where there are none, none is asked for. `origins`: web pages of others that may call it.
    `hosts`: the names that it answers to, like localhost, so that no web page reaches it by a name of its own (DNS
    rebinding); where there are none, any. `proxies`: networks of the proxies before it, to be told to HAProxy; None:
    there is no HAProxy. `draw`: makes overlays. `find`: says where cells are. `correct`: writes what people say into a
    bank, and `recall` says what stands there. `texts`: the figures of all processes (this one's alone).
    """
    api = FastAPI(
        title="cellnet",
        description="Names the lineage of cells and counts them in phase-contrast and brightfield frames.",
        version=number(),
        docs_url=None,  # its page loads scripts from elsewhere; ours is below
        redoc_url=None,
    )
    add_problems(api)
    api.add_middleware(
        Surroundings,
        limits=answerer.limits,
        meters=answerer.meters,
        keys=tuple(keys),
        hosts=tuple(hosts),
        origins=tuple(origins),
        behind_haproxy=proxies is not None,
    )
    if origins:  # around all else: a browser asks beforehand without a key, and is to read refusals
        api.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=EXPOSED
        )
    add_predict(api, answerer, draw, find)
    add_pixels(api, answerer)
    if correct and recall:
        add_labels(api, answerer, correct, recall)
    add_inference(api, answerer)
    add_state(api, answerer, texts, saves=correct is not None)
    if proxies is not None:
        add_edge(api, answerer.limits, proxies, hosts)
    add_pages(api)
    return api
