"""`python -m tests.support.stalling_service`: inference-svc with the tiny model, whose step never
ends when it reads the word LOOPS or HANGS three times in a row.
"""

import functools
import threading
from pathlib import Path
from typing import Any

import torch
import transformers

from inference_svc import model
from inference_svc.app import build
from inference_svc.device import Device
from inference_svc.model import LanguageModel
from inference_svc.settings import Settings
from o11y.web.service import run

LOOPS = 60
"""The number of the word at which the step runs on in Python."""

HANGS = 61
"""The number of the word at which the step waits in a call that does not return."""

load = model.load


def stalling(name: str | None, device: Device, cache: Path) -> LanguageModel:
    loaded = load(name, device, cache)
    language_model: transformers.PreTrainedModel = loaded.model
    forward = language_model.forward

    @functools.wraps(forward)
    def stall(input_ids: torch.Tensor, **kwargs: Any) -> Any:
        ids = input_ids.flatten().tolist()
        triples = set(zip(ids, ids[1:], ids[2:], strict=False))
        while (LOOPS,) * 3 in triples:
            pass
        if (HANGS,) * 3 in triples:
            threading.Event().wait()
        return forward(input_ids=input_ids, **kwargs)

    language_model.forward = stall
    return loaded


if __name__ == "__main__":
    model.load = stalling
    run("inference-svc", Settings, build)
