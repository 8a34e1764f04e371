"""The HTTP proxy that the environment wants between this process and a URL."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.request import getproxies

import httpx2

from o11y.http.transport import port_of


class UnsupportedProxy(Exception):
    """A variable of the environment names a proxy that speaks something else than HTTP."""


def proxy_for(url: httpx2.URL) -> str | None:
    """The URL of the proxy for requests to this URL; None where they go directly.

    HTTP_PROXY, HTTPS_PROXY and ALL_PROXY mean what they mean to httpx2, which doesn't look at them
    where it is given a transport. An entry of NO_PROXY is a domain, which stands for what is below
    it too, an address or a network (10.0.0.0/8), each with a port or without; `*` is everything.
    Raises UnsupportedProxy.
    """
    found = getproxies()
    entries = (entry.strip().lower() for entry in found.get("no", "").split(","))
    if any(_matches(entry, url) for entry in entries if entry):
        return None
    for scheme in (url.scheme, "all"):
        if proxy := found.get(scheme):
            address = proxy if "://" in proxy else f"http://{proxy}"
            if not address.startswith(("http://", "https://")):
                raise UnsupportedProxy(f"{scheme.upper()}_PROXY: only HTTP proxies are supported")
            return address
    return None


def _matches(entry: str, url: httpx2.URL) -> bool:
    """True if an entry of NO_PROXY names the URL's host."""
    scheme, _, rest = entry.rpartition("://")
    if scheme and scheme != url.scheme:
        return False
    name, port = _split(rest)
    if port is not None and port != str(port_of(url)):
        return False
    host = url.host.lower().strip("[]")
    if name == "*":
        return True
    if (address := _address(host)) is not None:
        return _holds(name, address)
    domain = name.removeprefix("*")
    return host == domain or host.endswith(domain if domain.startswith(".") else f".{domain}")


def _split(entry: str) -> tuple[str, str | None]:
    """Host or network and port; an IPv6 address with a port is in brackets."""
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":") or None
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _holds(name: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(name, strict=False)
    except ValueError:  # a name of something else
        return False
