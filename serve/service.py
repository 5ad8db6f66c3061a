"""The process that answers: HTTP, decoding, batches and models in one, so that nothing is sent between processes.

It never loads torch, but for versions that were published without an ONNX export.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from cellnet.config.choices import NETWORK_PX, EngineName
from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.prediction.answers import FoundCell, Prediction
from cellnet.prediction.engines import load_model
from cellnet.prediction.model import FrameModel
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import Registry
from serve import haproxy
from serve.answering import Answerer, Challenge, How
from serve.api import make_api
from serve.batching import MOST_TILES
from serve.http.keys import Key
from serve.http.labels import Known, Labelled, Taken
from serve.limits import Limits, busy
from serve.logs import set_up_logs
from serve.meters import Meters
from serve.models import Shelf, Watch
from serve.settings import LogFormat

log = logging.getLogger(__name__)

FIGURES_S: Final = 5.0
"""How long the other processes may take to give their figures."""


class Service:
    """The deployment: a shelf of models that follows the registry, and the HTTP interface over it."""

    def __init__(
        self,
        *,
        registry: Registry,
        classifier: str | None,
        regressor: str | None,
        challenge: Challenge,
        engine: EngineName,
        threads: int,
        poll_s: float,
        limits: Limits,
        keys: Sequence[Key],
        origins: Sequence[str],
        hosts: Sequence[str],
        proxies: Sequence[str],
        log_requests: bool,
        log_format: LogFormat,
        overlays: DeploymentHandle | None,
        corrections: DeploymentHandle | None,
    ) -> None:
        set_up_logs(log_requests=log_requests, log_format=log_format)
        cv2.setNumThreads(1)  # an image is decoded sooner than threads are woken
        self.meters = Meters()
        self._registry, self._engine, self._threads = registry, engine, threads
        self._keys, self._origins, self._hosts, self._overlays = keys, origins, hosts, overlays
        self._corrections = corrections
        self._proxies = proxies if haproxy.is_used() else None
        shelf = Shelf(
            registry,
            self._load,
            classifier=classifier,
            regressor=regressor,
            challenge=challenge != 0,
            meters=self.meters,
        )
        self._answerer = Answerer(shelf, limits, self.meters, challenge)
        Watch(shelf, poll_s)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The FastAPI application, made in the replica."""
        return make_api(
            self._answerer,
            keys=self._keys,
            origins=self._origins,
            hosts=self._hosts,
            proxies=self._proxies,
            draw=self._draw if self._overlays else None,
            find=self._find if self._overlays else None,
            correct=self._correct if self._corrections else None,
            recall=self._recall if self._corrections else None,
            texts=self._texts,
        )

    def check_health(self) -> None:
        """Ray Serve starts a replica anew where this raises."""
        self._answerer.check()

    async def figures(self) -> dict[str, str]:
        """What this process counted, and the HAProxy of its node, each by its name."""
        texts = {serve.get_replica_context().replica_tag: self.meters.text()}
        if haproxy.is_used() and (refused := await asyncio.to_thread(haproxy.figures)):
            texts[f"haproxy-{ray.get_runtime_context().get_node_id()[:8]}"] = refused
        return texts

    def _load(self, version: ModelVersion) -> FrameModel:
        """A version in memory, that has answered once, since the first time is slow."""
        model = load_model(self._registry, version, engine=self._engine, threads=self._threads)
        model.answer(np.eye(*model.card.preprocess.tile_px, dtype=np.uint8))
        model.look([np.zeros((NETWORK_PX, NETWORK_PX), np.uint8)] * MOST_TILES, with_features=True)
        return model

    async def _draw(self, image: ImageFile, how: How, prediction: Prediction) -> bytes:
        refs = prediction.models
        picture: bytes = await self._told("draw", image, how, refs.classifier, refs.regressor)
        return picture

    async def _find(self, image: ImageFile, how: How, prediction: Prediction) -> list[FoundCell] | None:
        found: list[FoundCell] | None = await self._told("find", image, how, prediction.models.regressor)
        return found

    async def _correct(self, taken: Taken) -> Labelled:
        written: Labelled = await self._of_bank("write", taken)
        return written

    async def _recall(self, frame: str) -> Known:
        known: Known = await self._of_bank("read", frame)
        return known

    async def _of_bank(self, what: str, asked: Any) -> Any:
        """What the process of the bank says. Raises what it gives back as an error, and 503 where it fails."""
        assert self._corrections is not None
        try:
            said = await getattr(self._corrections, what).remote(asked)
        except Exception as error:  # of that process
            log.exception("the process of the bank failed to %s", what)
            raise busy("the bank takes no corrections now") from error
        if isinstance(said, Exception):
            raise said
        return said

    async def _told(self, what: str, image: ImageFile, how: How, *refs: str | None) -> Any:
        """What the process that says where makes of an image. Raises DataError, and 503 where it fails."""
        assert self._overlays is not None
        try:
            ask = getattr(self._overlays, what)
            told = await ask.remote(image, how.page, how.channel, how.pixel_um, *refs)
        except Exception as error:  # of the registry, or of that process
            log.exception("to %s by %s failed", what, " and ".join(filter(None, refs)))
            raise busy("what was seen where cannot be told now") from error
        if isinstance(told, DataError):
            raise told
        return told

    async def _texts(self) -> dict[str, str]:
        """The figures of all processes; of one that does not answer in time, none."""
        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        try:
            async with asyncio.timeout(FIGURES_S):
                figures = await handle.broadcast("figures").results_async(return_exceptions=True)
        except TimeoutError:
            figures = [await self.figures()]
        return {name: text for texts in figures if isinstance(texts, dict) for name, text in texts.items()}
