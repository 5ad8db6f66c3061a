"""cellnet: names the lineage of cells and counts them in phase-contrast and brightfield frames.

    import cellnet

    registry = cellnet.open_registry("registry")          # a folder or s3://bucket/prefix
    model = cellnet.load(registry, "regressor:champion")  # or regressor@7
    answer = model.answer("frame.png")                    # or grey values (H, W), pixel_um=0.5
    answer.count, answer.count_low, answer.count_high, answer.unfamiliar
    bank = cellnet.open_bank("bank")

The names of `__all__` stay; what lies below may move. Each is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellnet.bank.bank import Bank
    from cellnet.bank.frames import Frame
    from cellnet.errors import CellnetError
    from cellnet.prediction.answers import Answer
    from cellnet.prediction.library import Model, load, open_bank, open_registry
    from cellnet.registry.records import ModelVersion
    from cellnet.registry.registry import Registry

__all__ = [
    "Answer",
    "Bank",
    "CellnetError",
    "Frame",
    "Model",
    "ModelVersion",
    "Registry",
    "load",
    "open_bank",
    "open_registry",
]

if not TYPE_CHECKING:  # else every misspelt name would be an object to a type checker

    def __getattr__(name: str) -> object:
        homes = {
            "Answer": "prediction.answers",
            "Bank": "bank.bank",
            "CellnetError": "errors",
            "Frame": "bank.frames",
            "ModelVersion": "registry.records",
            "Registry": "registry.registry",
        }
        if name not in __all__:
            raise AttributeError(f"module 'cellnet' has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(f"cellnet.{homes.get(name, 'prediction.library')}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
