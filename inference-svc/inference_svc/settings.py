"""Settings of inference-svc, read from the environment."""

from pathlib import Path

from pydantic import Field

from accounting.settings import LedgerSettings
from inference_svc.device import DType
from inference_svc.packaged import CACHE

MAX_WINDOWS = 512
"""Most windows of the embedding model that the texts of a call may make."""


class Settings(LedgerSettings):
    """Model, device and bounds of the engine. A bound of None depends on the device: see sizing.

    Sizes are in tokens, the cache's in blocks of 64.
    """

    app_port: int = Field(8083, ge=1, le=65535)
    local_model_name: str | None = None
    local_model_dtype: DType | None = None
    use_gpu: bool = True
    gpu_device_id: int = Field(0, ge=0)
    model_cache_dir: Path = CACHE
    engine_max_context: int = Field(4096, ge=64)
    engine_max_requests: int | None = Field(None, ge=1)
    engine_max_batch_tokens: int | None = Field(None, ge=16)
    engine_cache_blocks: int | None = Field(None, ge=8)
    engine_max_waiting: int = Field(256, ge=1)
    embedding_max_waiting: int = Field(1024, ge=MAX_WINDOWS)
    engine_stall_seconds: float = Field(15, gt=0)
    local_usd_per_hour: float | None = Field(None, ge=0, le=10_000)
    """The price of the machine or GPU; without it and the next the local model costs nothing."""
    usd_per_kwh: float | None = Field(None, ge=0, le=100)
    """The price of the energy, where the GPU tells how much it uses."""
    request_timeout_seconds: float = Field(60, gt=0)
    stream_timeout_seconds: float = Field(600, gt=0)
