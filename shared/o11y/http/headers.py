"""Headers of requests to services and providers."""

from importlib.metadata import version

JSON = {"content-type": "application/json"}

USER_AGENT = {"user-agent": f"o11y-4-ai/{version('o11y')}"}

UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
"""A parent that isn't recorded (W3C Trace Context): what it calls isn't either."""
