"""Settings of vector-svc, read from the environment."""

from pathlib import Path

from pydantic import Field, HttpUrl

from o11y.settings import ServiceSettings


class Settings(ServiceSettings):
    """Place and name of the collection; the name's pattern is Chroma's.

    With `chroma_url` the collection is on a Chroma server and this process holds no data.
    """

    app_port: int = Field(8082, ge=1, le=65535)
    chroma_url: HttpUrl | None = None
    chroma_persist_directory: Path = Path("./chroma")
    chroma_collection_name: str = Field(
        "documents", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{1,298}[a-zA-Z0-9]$"
    )
    request_timeout_seconds: float = Field(30, gt=0)
