"""The routes that say how the service is: its models, its health, its figures."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from serve.answering import Answerer
from serve.haproxy_rules import EDGE
from serve.http.problems import problems
from serve.http.schemas import ModelInfo, Models, Readiness
from serve.limits import Limits
from serve.meters import CONTENT_TYPE, merged
from serve.models import Served

Texts = Callable[[], Awaitable[dict[str, str]]]
"""The figures of every process that serves, by its name."""


def add_state(api: FastAPI, answerer: Answerer, texts: Texts | None, saves: bool) -> None:
    shelf, meters = answerer.shelf, answerer.meters

    @api.get("/v1/models", summary="The models that are served", responses=problems(401, 503))
    async def list_models() -> Models:
        """Each version with its role, lineages and scores."""
        return Models(models=[*_infos(answerer)], corrections=saves)

    @api.get("/healthz", summary="Whether the service is alive", response_class=PlainTextResponse)
    async def healthz() -> str:
        """`ok` while this process answers at all."""
        return "ok"

    @api.get("/readyz", summary="Whether the service follows its registry")
    async def readyz(request: Request) -> Readiness:
        """`stale` where it answers with older versions than the registry says, and why."""
        reasons = [f"{role}: {why}" for role, why in shelf.reasons().items()]
        return Readiness(
            status="stale" if reasons else "ok",
            problems=reasons if request.state.known else [],
            registry_answered=datetime.fromtimestamp(shelf.checked, UTC).isoformat(timespec="seconds"),
        )

    @api.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse, responses=problems(401))
    async def metrics() -> Response:
        """Requests, images, times and refusals of all processes that serve."""
        by_process = await texts() if texts else {"0": meters.text()}
        return Response(await asyncio.to_thread(merged, by_process), media_type=CONTENT_TYPE)


def add_edge(api: FastAPI, limits: Limits, proxies: Sequence[str], hosts: Sequence[str]) -> None:
    @api.get(EDGE, include_in_schema=False)
    async def edge() -> dict[str, Any]:
        """What `cellnet-haproxy` asks as it starts; it lets nobody else ask."""
        return {"proxies": proxies, "hosts": hosts, "queue": limits.queue}


def _infos(answerer: Answerer) -> list[ModelInfo]:
    shelf = answerer.shelf
    roles = {id(served): lineage for lineage, served in shelf.champions.by_lineage.items()}
    return [
        _info(served, roles.get(id(served), "classifier" if served.version.card.task == "classify" else "regressor"))
        for served in (*shelf.champions, *shelf.challengers)
    ]


def _info(served: Served, role: str) -> ModelInfo:
    card = served.version.card
    return ModelInfo(
        ref=served.ref,
        role=role,
        alias=served.alias,
        engine=served.engine,
        task=card.task,
        classes=card.classes,
        scores=card.scores,
        bank_digest=card.bank_digest,
        tile_px=card.preprocess.tile_px,
        pixel_um=card.preprocess.pixel_um,
    )
