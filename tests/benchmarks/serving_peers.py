"""Other ways to serve the same models, for `tests/benchmarks/serving.py`: python serving_peers.py WAY REGISTRY PORT.

eager      FastAPI and uvicorn, each request in torch, as one would write it first
litserve   LitServe with the engine of cellnet: decoding in the worker, dynamic batches, a worker for each CPU
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import litserve
from fastapi import FastAPI, Request, Response, UploadFile

from cellnet.images.file import ImageFile
from cellnet.prediction.answers import combine
from cellnet.prediction.engines import load_model
from cellnet.prediction.lineup import Cuts, Lineup, answers, resolve_models
from cellnet.prediction.model import Cut, FrameModel
from cellnet.registry.registry import Registry


def models_of(registry: str, engine: str) -> Lineup[FrameModel]:
    """The champions, in memory."""
    opened = Registry.open(registry)
    found = resolve_models(opened, None, None)
    return found.map(lambda version: load_model(opened, version, engine=engine))


def serve_eager(registry: str, port: int) -> None:
    import torch
    import uvicorn

    models, api = models_of(registry, "torch"), FastAPI()
    torch.set_num_threads(os.cpu_count() or 1)  # as torch itself would

    @api.post("/v1/predict")
    def predict(images: UploadFile) -> dict[str, Any]:
        image = ImageFile("image", images.file.read())
        said = answers(models, image.decode(), pixel_um=image.pixel_um)
        return combine("image", said).model_dump()

    @api.get("/healthz")
    def health() -> str:
        return "ok"

    uvicorn.run(api, host="127.0.0.1", port=port, log_level="error")


class Counting(litserve.LitAPI):
    """Both models; the tiles of a batch are run together."""

    def __init__(self, registry: str) -> None:
        super().__init__(max_batch_size=16, batch_timeout=0.002, api_path="/v1/predict")
        self.registry = registry

    def setup(self, device: str) -> None:
        self.models = models_of(self.registry, "onnxruntime")

    def decode_request(self, request: Request) -> list[Cut]:
        image = ImageFile("image", request["images"].file.read())
        cuts = Cuts(image.decode(), image.pixel_um)
        return [cuts.of(model) for model in self.models]

    def batch(self, inputs: list[list[Cut]]) -> list[list[Cut]]:
        return inputs

    def predict(self, batch: list[list[Cut]]) -> list[Any]:
        said: list[list[Any]] = [[] for _ in batch]
        for place, model in enumerate(self.models):
            cuts = [cut[place] for cut in batch]
            for one, cut, prediction in zip(said, cuts, model.predict_cuts(cuts), strict=True):
                one.append(model.answer_of(prediction, cut.measures))
        return said

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: list[Any]) -> Response:
        return Response(combine("image", output).model_dump_json(), media_type="application/json")


def serve_litserve(registry: str, port: int) -> None:
    fast = os.environ.get("LITSERVE_FAST_QUEUE") == "1"
    workers = os.cpu_count() or 1
    server = litserve.LitServer(
        Counting(registry), accelerator="cpu", workers_per_device=workers, healthcheck_path="/healthz", fast_queue=fast
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    {"eager": serve_eager, "litserve": serve_litserve}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
