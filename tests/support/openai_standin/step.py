"""How the stand-in answers one request, and how a request says so."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

UsageMode = Literal[
    "normal",
    "absent",
    "null",
    "in_last_chunk",
    "every_chunk",
    "cached",
    "reasoning",
    "audio",
]


Seconds = Annotated[float, Field(ge=0)]
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Step:
    """One answer. A step that says nothing is a good answer, at once."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    """Any but 200 is answered with OpenAI's error envelope, streamed request or not."""
    retry_after: str | None = None
    latency: Seconds = 0.0
    """Seconds before the first byte."""
    chunks: Positive | None = None
    """Pieces a choice's text comes in; each counts as one token. A text too short has fewer."""
    pace: Seconds = 0.0
    """Seconds between two content chunks of a stream."""
    hang: Literal["before_first_byte", "mid_stream"] | None = None
    """Say nothing more until the client goes; `mid_stream` also stops in the middle of a body."""
    cut: Literal["before_first_byte", "mid_body", "mid_stream"] | None = None
    """Reset the connection; the two middles are the same, a stream's or a body's."""
    after: NotNegative | None = None
    """Content chunks before a middle, or a malformed event; without it half of them."""
    malformed: Literal["json", "sse", "not_an_object"] | None = None
    """A body that is no JSON object, or one such event within a stream."""
    content_type: str | None = None
    """Instead of the right one; with text/html a malformed answer is an HTML page."""
    usage: UsageMode | dict[str, Any] = "normal"
    """A dictionary is reported as it is, and billed."""
    size: NotNegative | None = None
    """Bytes of text, instead of a few words; JSON answers hold a string of that size."""
    no_done: bool = False
    split: Positive | None = None
    """Bytes a write of a stream, wherever events and characters end; the rest of an event waits
    for the next one."""
    text: str | None = None
    """The answer's text, or a tool call's arguments, as they are."""

    @model_validator(mode="after")
    def says_one_thing(self) -> "Step":
        if self.hang and self.cut:
            raise ValueError("hang and cut exclude each other")
        if self.text is not None and self.size is not None:
            raise ValueError("text and size exclude each other")
        return self


class Script(BaseModel):
    """The `standin` field of a request; without steps it only gives the request an id."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(min_length=1)
    script: list[Step] = []

    @classmethod
    def read(cls, raw: object) -> "Script":
        """Raises ValueError that names the field that is wrong."""
        try:
            # Strict rules take a dataclass from an object in JSON only.
            return cls.model_validate_json(json.dumps(raw))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("standin", *first["loc"]))
            raise ValueError(f"{where}: {first['msg']}") from error


def scripted(request_id: str, *steps: Step | dict[str, Any]) -> dict[str, Any]:
    """The body field that makes the k-th request with this id play step k; the last repeats."""
    script = [
        step
        if isinstance(step, dict)
        else {
            name: value for name, value in vars(step).items() if value != getattr(Step, name, None)
        }
        for step in steps
    ]
    return {"standin": {"id": request_id, "script": script}}
