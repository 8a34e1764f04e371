"""Admission: who may call, and what. The tenant of a call with a key is the key's."""

import hmac
from collections import defaultdict
from collections.abc import Mapping

from opentelemetry import context, trace
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accounting.budget import with_budgets
from accounting.caller import with_key
from gateway.console import pages
from gateway.keys.directory import KeyDirectory
from gateway.keys.key import PREFIX, Key
from gateway.limits import limiter, tokens
from gateway.limits.limiter import Limiter, Permit, RateLimited
from gateway.spending import Spending
from o11y.contracts import BUDGET_WARNING_HEADER
from o11y.telemetry import identity, schema
from o11y.telemetry.identity import NO_TENANT, Tenants
from o11y.telemetry.signals import Telemetry
from o11y.web import problems
from o11y.web.problems import Problem

PROBES = frozenset({"/livez", "/readyz"})
ADMIN = "/admin/"
BYTES_PER_TOKEN = 4
"""Bytes of a body that are counted as a token until its call has told how many it used."""

USAGE = "/usage"
"""A path that the admin key opens as well, as it does the console's data."""

_HEADERS = {b"authorization": "authorization", b"x-api-key": "x-api-key"}


class AdmissionMiddleware:
    """Lets a request in, or answers 401 or 403.

    Probes need no key, nor does `/metrics` where `metrics_are_public`. `/admin/…` needs the admin
    key, and is not there without one.
    """

    def __init__(
        self,
        app: ASGIApp,
        directory: KeyDirectory,
        spending: Spending,
        limits: Limiter,
        admin_key: SecretStr | None,
        telemetry: Telemetry,
        *,
        metrics_are_public: bool,
    ) -> None:
        self._app = app
        self._directory = directory
        self._spending = spending
        self._limiter = limits
        self._admin_key = admin_key
        self._refused = telemetry.counter(schema.ADMISSION_REFUSED)
        self._tenants = Tenants()
        self._public = PROBES | ({"/metrics"} if metrics_are_public else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        key: Key | None = None
        try:
            key = self._admit(scope)
            looks_on = scope["path"].startswith(pages.DATA)  # and doesn't use up what it shows
            permit = await self._permit(key, scope) if key and not looks_on else None
        except Problem as problem:
            problems.report(problem)
            self._decided(problem.code)
            if problem.status < 500:
                tenant = self._tenants.label(key.tenant if key else NO_TENANT)
                labels = {schema.LABEL_REASON: problem.code, schema.LABEL_TENANT: tenant}
                self._refused.add(1, labels)
            if isinstance(problem, RateLimited) and scope["path"].startswith("/v1/"):
                problem = problem.as_openai()
            await problems.answer(problem, scope["path"])(scope, receive, send)
            return
        if key is None:
            await self._app(scope, receive, send)
            return
        self._decided(None)
        known = with_key(context.get_current(), key.tenant, key.id, key.models)
        if budgets := self._directory.budgets(key):
            known = with_budgets(known, budgets)
        trace.get_current_span().set_attributes(identity.attributes(known))
        token = context.attach(known)
        try:
            await self._answer(scope, receive, send, key, permit)
        finally:
            context.detach(token)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, key: Key, permit: Permit | None
    ) -> None:
        """Answer a call that was let in, and say what its key has left."""
        headers: dict[str, str] = {}
        if warning := self._spending.warning(key):
            headers[BUDGET_WARNING_HEADER] = warning
        if permit is None:
            await self._app(scope, receive, _with(send, headers) if headers else send)
            return
        headers |= limiter.headers(permit)
        if scope["path"].startswith("/v1/"):
            headers |= limiter.openai_headers(permit)
        used = tokens.begin() if permit.counts_tokens else None
        sending = _with(send, headers)

        async def end() -> None:
            await permit.end(used.total if used and used.is_known else None)

        async def ending(message: Message) -> None:
            # a caller who waits for the end of one call may make the next one then
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await end()
            await sending(message)

        try:
            await self._app(scope, receive, ending if permit.is_leased else sending)
        finally:
            tokens.end()
            await end()

    async def _permit(self, key: Key, scope: Scope) -> Permit | None:
        """The permit of a call whose key or tenant has limits. Raises Problem."""
        limited = self._directory.limits(key)
        if not limited:
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        size = int(length) if length.isdigit() else 0
        return await self._limiter.admit(limited, -(-size // BYTES_PER_TOKEN))

    def _is_public(self, path: str) -> bool:
        return path in self._public or pages.is_page(path)

    def _decided(self, refused: str | None) -> None:
        """Tell the span of the request what was decided, and why."""
        span = trace.get_current_span()
        span.set_attribute(schema.ADMISSION_DECISION, "refused" if refused else "allowed")
        if refused:
            span.set_attribute(schema.ADMISSION_REASON, refused)

    def _admit(self, scope: Scope) -> Key | None:
        """The caller's key; None where none is asked for. Raises Problem."""
        if PREFIX.encode() in scope["query_string"]:
            detail = "a key belongs into a header: addresses are written into logs"
            raise Problem(400, detail, code="key_in_query")
        if scope["path"].startswith(ADMIN):
            self._admit_admin(_credentials(scope))
            return None
        tells_of_others = scope["path"] == USAGE or scope["path"].startswith(pages.DATA)
        if tells_of_others and self._is_admin(_credentials(scope)):
            scope.setdefault("state", {})["is_admin"] = True
            return None
        if not self._directory.required and not self._directory.failure:
            if tells_of_others and self._admin_key:
                raise _admin_key_needed()
            return None
        headers = _credentials(scope)
        key = self._directory.authenticate(headers)
        if not key.may_call(scope["path"]):
            detail = f"the key may not call {scope['path'][:200]}"
            raise Problem(403, detail, code="route_not_allowed")
        return key

    def _admit_admin(self, headers: dict[str, list[str]]) -> None:
        if self._admin_key is None:
            raise Problem(404, "there is no administration: ADMIN_KEY is not set")
        if not self._is_admin(headers):
            raise _admin_key_needed()

    def _is_admin(self, headers: dict[str, list[str]]) -> bool:
        given = [value.partition(" ")[2] for value in headers["authorization"]]
        given += headers["x-api-key"]
        wanted = self._admin_key.get_secret_value().encode() if self._admin_key else b""
        return len(given) == 1 and bool(wanted) and hmac.compare_digest(given[0].encode(), wanted)


def _admin_key_needed() -> Problem:
    headers = {"WWW-Authenticate": "Bearer"}
    return Problem(401, "the admin key is needed", code="admin_key_needed", headers=headers)


def _with(send: Send, headers: Mapping[str, str]) -> Send:
    """The `send` that puts these headers into the response's head, instead of a provider's."""
    ours = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    names = {name for name, _ in ours}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [each for each in message.get("headers", ()) if each[0] not in names]
            message = {**message, "headers": [*others, *ours]}
        await send(message)

    return sending


def _credentials(scope: Scope) -> dict[str, list[str]]:
    """All values of the headers that may bring a key, by their names; without any, the key that
    the console keeps.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name, value in scope["headers"]:
        if name in _HEADERS:
            found[_HEADERS[name]].append(value.decode("latin-1"))
    if not found and (kept := pages.key_of(scope)):
        found["x-api-key"].append(kept)
    return found
