"""OpenAI's error envelope."""

from typing import Any

# Status: (type, code, message) as OpenAI has them.
KNOWN: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-****."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Not supported."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached; please try again later."),
    503: ("server_error", "service_unavailable", "The engine is currently overloaded."),
}
OTHER = ("server_error", None, "The server had an error while processing your request.")


class Refusal(Exception):
    """A request that the API refuses by itself, whatever its script says."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.envelope = envelope(status, message, param, code)


def envelope(
    status: int, message: str | None = None, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error; what is not given is what OpenAI says with this status."""
    kind, known_code, text = KNOWN.get(status, OTHER)
    return {
        "error": {
            "message": message or text,
            "type": kind,
            "param": param,
            "code": code or (None if message else known_code),
        }
    }
