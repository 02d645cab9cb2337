"""Tokens, made where the secret is: on your server, for who is signed in."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any


def mint_token(
    secret: str | bytes,
    *,
    sub: str,
    subscribe: Sequence[str] = (),
    publish: Sequence[str] = (),
    subscriptions: Sequence[str] = (),
    admin: bool = False,
    max_connections: int = 0,
    ttl: float = 3600.0,
    algorithm: str = "HS256",
    **claims: Any,
) -> str:
    """Makes a JWT with the gateway's secret of 32 bytes or more. ``subscribe``
    and ``publish`` are patterns of channels, ``subscriptions`` of names.
    ``ttl`` is in seconds; ``claims`` are others, e.g. ``iss`` or ``aud``.

    ``algorithm`` is HS256, HS384 or HS512. EdDSA and RSA are beyond Python's
    standard library: sign the same claims with PyJWT and its ``crypto`` extra.
    """
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(algorithm)
    if not digest:
        raise ValueError(f"algorithm is {algorithm!r}, want HS256, HS384 or HS512")
    key = secret.encode() if isinstance(secret, str) else secret
    if len(key) < 32:
        raise ValueError(f"the secret has {len(key)} bytes, want 32 at least")
    if isinstance(subscribe, str) or isinstance(publish, str) or isinstance(subscriptions, str):
        raise TypeError("subscribe, publish and subscriptions are lists of patterns")
    now = int(time.time())
    rights: dict[str, Any] = {"subscribe": [*subscribe], "publish": [*publish], "subscriptions": [*subscriptions]}
    if admin:
        rights["admin"] = True
    if max_connections:
        rights["max_connections"] = max_connections
    body = {"sub": sub, "iat": now, "exp": now + int(ttl), "jti": uuid.uuid4().hex, **claims, "longline": rights}
    signed = _part({"alg": algorithm, "typ": "JWT"}) + b"." + _part(body)
    return (signed + b"." + _base64(hmac.new(key, signed, digest).digest())).decode()


def _part(value: Any) -> bytes:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
