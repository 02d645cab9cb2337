"""What can go wrong, by name. Whether trying again may help is a field, so
that nobody has to match texts."""

from __future__ import annotations

from collections.abc import Iterable


class LonglineError(Exception):
    """The base of every error that Longline makes; itself one with a code that
    has no class.

    ``code`` is as in the gateway's problems ("forbidden"), ``status`` the HTTP
    status or close code (0: none), ``retry`` whether the same again may
    succeed, ``retry_after`` the seconds that the gateway asked to wait before
    that, ``request_id`` the ``x-request-id`` the request had, by which logs
    between here and the gateway know it.
    """

    code = "error"
    retry = False

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        retry: bool | None = None,
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        if code:
            self.code = code
        if retry is not None:
            self.retry = retry
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"


class BadRequestError(LonglineError):
    """The request itself is wrong."""

    code = "bad_request"


class UnauthorizedError(LonglineError):
    """There is no token, or it is wrong, revoked or expired."""

    code = "unauthorized"


class ForbiddenError(LonglineError):
    """The token doesn't allow it."""

    code = "forbidden"


class NotFoundError(LonglineError):
    """No such subscription or channel."""

    code = "not_found"


class ConflictError(LonglineError):
    """Something else is there already, or is attached."""

    code = "conflict"


class GoneError(LonglineError):
    """The cursor's events are no longer the log's."""

    code = "gone"


class TooLargeError(LonglineError):
    """Too many bytes, or too many of something."""

    code = "too_large"


class TakenOverError(LonglineError):
    """The same consumer attached elsewhere."""

    code = "taken_over"


class RateLimitedError(LonglineError):
    """Too much at once; ``retry_after`` says how long to wait."""

    code = "rate_limited"
    retry = True


class UnavailableError(LonglineError):
    """The gateway, or something behind it, is away or restarting."""

    code = "unavailable"
    retry = True


class ConnectionError(LonglineError):
    """The connection could not be made, broke, or fell silent."""

    code = "connection"
    retry = True


class ProtocolError(LonglineError):
    """What came is not what the protocol promises."""

    code = "protocol"
    retry = True


class SignatureError(LonglineError):
    """A callback that is not signed by the secret, or too long ago."""

    code = "signature"


class Reject(Exception):
    """What a handler raises for an event that can't be handled, now or later:
    it is not called again, the event is dead-lettered and the next one
    follows. Any other exception has it called again. Of a batch, ``ids`` names
    the events that are meant; the others count as handled.
    """

    def __init__(self, reason: str = "rejected", ids: Iterable[str] | None = None) -> None:
        super().__init__(reason)
        self.ids = None if ids is None else frozenset(ids)


class RetryAfter(Exception):
    """What a handler raises whose own peer said when to come back. It counts
    as a try. Any exception with a number ``retry_after`` does the same."""

    def __init__(self, seconds: float, reason: str = "asked to come back later") -> None:
        super().__init__(reason)
        self.retry_after = seconds


_BY_CODE: dict[str, type[LonglineError]] = {
    c.code: c
    for c in (
        BadRequestError, UnauthorizedError, ForbiddenError, NotFoundError, ConflictError, GoneError, TooLargeError,
        TakenOverError, RateLimitedError, UnavailableError, ConnectionError, ProtocolError,
    )
}  # fmt: skip
_BY_STATUS = {
    400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 408: "connection", 409: "conflict",
    410: "gone", 413: "too_large", 429: "rate_limited",
}  # fmt: skip
_BY_CLOSE = {1001: "unavailable", 1012: "unavailable", 1009: "too_large", 4409: "taken_over"}


def for_status(
    status: int, code: str, detail: str, retry_after: float | None = None, request_id: str = ""
) -> LonglineError:
    """The error for an HTTP answer: by its code, or else by its status. A
    server's trouble (5xx) passes, whatever it is called."""
    if status >= 500:
        kind: type[LonglineError] = UnavailableError
        code = code or "unavailable"
    else:
        code = code or _BY_STATUS.get(status, "error")
        kind = _BY_CODE.get(code, LonglineError)
    return kind(detail, code=code, status=status, retry_after=retry_after, request_id=request_id)


def for_close(status: int, reason: str, reconnect: bool | None, retry_after: float | None) -> LonglineError:
    """The error for a ``bye``. Codes 4000 to 4499 are final unless the gateway
    says otherwise."""
    code = _BY_CLOSE.get(status, "connection")
    if status >= 4000 and status not in _BY_CLOSE:
        code = "unavailable" if status >= 4500 else _BY_STATUS.get(status - 4000, "error")
    kind = _BY_CODE.get(code, LonglineError)
    return kind(reason or f"closed with {status}", code=code, status=status, retry=reconnect, retry_after=retry_after)
