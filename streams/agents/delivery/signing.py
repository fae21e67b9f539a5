"""How a webhook's receiver knows that a request is ours: the signature of Standard Webhooks.

`webhook-id`, `webhook-timestamp` and the body, joined by dots, under HMAC-SHA256; the receiver
refuses old timestamps, and knows a repeated id. Source: https://www.standardwebhooks.com.

An id has the id of a task in it, which may be any text, and a header takes visible ASCII alone: the
rest is quoted as in addresses, by `%` and the bytes of its UTF-8, and so is `%`. What is quoted is signed.
"""

import base64
import binascii
import hashlib
import hmac
import string
from urllib.parse import quote

SECRET_PREFIX = "whsec_"  # noqa: S105 - what such secrets begin with
# No space either: those at the ends of a header are dropped on the way.
_AS_THEY_ARE = string.punctuation.replace("%", "")


def headers(notice_id: str, at_s: int, body: bytes, secret: str | None) -> dict[str, str]:
    """Return the headers of a request; without a secret it is not signed."""
    sent_id = quote(notice_id, _AS_THEY_ARE)
    found = {"webhook-id": sent_id, "webhook-timestamp": str(at_s)}
    if secret is not None:
        signed = b".".join((sent_id.encode(), str(at_s).encode(), body))
        digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
        found["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return found


def _key(secret: str) -> bytes:
    """Return the key of a secret: base64 after `whsec_`, else its own bytes."""
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass  # somebody's own secret that only begins like one
    return secret.encode()
