"""Events from a Longline gateway, at your handler's pace.

    import longline

    client = longline.Client("http://127.0.0.1:8080", token="…")
    client.subscriptions.create("crm", {"channels": ["acct-42"]})
    for event in client.attach("crm"):
        print(event.type, event.data)

``longline.aio`` is the same for asyncio.
"""

from .admin import Attempt, Callback, ChannelInfo, DeadLetter, Info, Page, Settings, Status, Trace
from .callback import verify_callback, wsgi_callback
from .client import Client
from .errors import (
    BadRequestError,
    ConflictError,
    ConnectionError,
    ForbiddenError,
    GoneError,
    LonglineError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    Reject,
    RetryAfter,
    SignatureError,
    TakenOverError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from .event import Cursor, Delivery, Event, Gap, Partitions, parse_cursor, partition_of
from .options import BatchHandler, Handler, Options, State
from .publish import NewEvent, Published
from .pull import Pulled, Puller
from .retry import Retry
from .subscription import Subscription
from .tokens import mint_token

__all__ = [
    "Attempt", "BadRequestError", "BatchHandler", "Callback", "ChannelInfo", "Client", "ConflictError", "ConnectionError",
    "Cursor", "DeadLetter", "Delivery", "Event", "ForbiddenError", "Gap", "GoneError", "Handler", "Info", "LonglineError",
    "NewEvent", "NotFoundError", "Options", "Page", "Partitions", "ProtocolError", "Published", "Pulled", "Puller",
    "RateLimitedError", "Reject", "Retry", "RetryAfter", "Settings", "SignatureError", "State", "Status", "Subscription",
    "TakenOverError", "TooLargeError", "Trace", "UnauthorizedError", "UnavailableError", "mint_token", "parse_cursor",
    "partition_of", "verify_callback", "wsgi_callback",
]  # fmt: skip
