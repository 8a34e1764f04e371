"""Loading the language model: the packaged one, a local folder, or one from a hub."""

from dataclasses import dataclass
from pathlib import Path

import httpx2
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from inference_svc import packaged
from inference_svc.device import Device
from o11y.web.service import StartError

HUB_SECONDS = 5.0
"""Longest wait for the hub to say whether it has a model."""


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model: its public name, weights, tokenizer, size and window (tokens)."""

    name: str
    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    device: str
    parameters: int
    window: int


def load(name: str | None, device: Device, cache: Path) -> LanguageModel:
    """Load the model `name` (hub id or folder), or the packaged one, onto the device.

    Raises StartError with one plain sentence when it can't be loaded.
    """
    if name is None:
        try:
            source, public = str(packaged.ensure(cache)), packaged.NAME
        except (OSError, packaged.ConversionError) as error:
            raise StartError(f"the packaged model could not be prepared: {error}") from error
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
        source, public = str(folder), folder.name
    else:
        require_hub_model(name)
        source, public = name, name
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=device.dtype)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        what = f"LOCAL_MODEL_NAME={name}" if name else f"the packaged model in {source}"
        raise StartError(f"{what}: {reason}") from error
    model.to(device.name)
    return LanguageModel(
        name=public,
        model=model.eval(),
        tokenizer=tokenizer,
        device=device.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        window=int(getattr(model.config.get_text_config(), "max_position_embeddings", 2048)),
    )


def require_hub_model(name: str) -> None:
    """Return when the model is cached or the hub has it; else raise StartError within seconds."""
    try:
        AutoConfig.from_pretrained(name, local_files_only=True)
        return
    except (OSError, ValueError):
        pass  # not cached: the hub must be asked
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise StartError(
            f"LOCAL_MODEL_NAME={name}: no such folder, and the model hub answered {status}"
        ) from error
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise StartError(
            f"LOCAL_MODEL_NAME={name}: no such folder, and the model hub can't be reached "
            f"({error}). Leave it empty for the packaged model, or name a folder on this machine."
        ) from error
