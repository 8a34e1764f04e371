"""HTTP/1.1 as uvicorn's httptools protocol speaks it, without other protocols.

A client may offer another protocol with any request (`Upgrade: h2c`, as Java's HTTP client does),
and a server that has none ignores the offer and answers (RFC 9110, 7.8). httptools takes what
follows the head of such a request for the other protocol: its body would be lost.
"""

from array import array
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
    """One connection of a client, who gets an answer in HTTP/1.1 whatever else it offers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._declines = False
        self.renew()

    def renew(self) -> None:
        """Read what follows as the beginning of a request."""
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def on_message_begin(self) -> None:
        self._declines = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._declines = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._declines:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._declines:
            super().on_message_complete()

    def declined(self) -> bytes | None:
        """The head of a request again, without its offer; None where nothing was declined."""
        if not self._declines:
            return None
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                offered = (token.strip() for token in value.split(b","))
                tokens = [token for token in offered if token.lower() in (b"close", b"keep-alive")]
                lines.append(b"connection: " + b", ".join(tokens))
            elif name != b"upgrade":
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])


class _Parser(httptools.HttpRequestParser):
    """Reads a request whose offer was declined once more, body included."""

    def __init__(self, protocol: HttpProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            head = self._protocol.declined()
            if head is None:
                raise
            self._protocol.renew()
            self._protocol.parser.feed_data(head + bytes(data)[offer.args[0] :])
