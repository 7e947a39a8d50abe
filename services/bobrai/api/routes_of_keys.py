"""The operations of API keys, for the table in ``routes``."""

from typing import Final

from bobrai.api import key_view, schemas
from bobrai.api.key_routes import KeyRoutes
from bobrai.api.operations import BODY, STORED, Operation, Success
from bobrai.domain.access import Scope

_KEYS: Final = "/api/v1/keys"
_ONE: Final = _KEYS + "/{key_id}"
_BODY_BYTES: Final = 32 * 1024


def of_keys(keys: KeyRoutes) -> list[Operation]:
    """Return them."""
    return [*_reading(keys), *_changing(keys)]


def _reading(keys: KeyRoutes) -> list[Operation]:
    return [
        Operation(
            id="listKeys",
            method="GET",
            paths=(_KEYS,),
            handler=keys.list_all,
            scope=Scope.ADMIN,
            tag="Keys",
            summary="List API keys",
            description="Those that have ended are among them for 30 days. Secrets are nowhere.",
            successes={200: Success("Every key, the oldest first.", key_view.KeyList)},
            problems=("invalid", *STORED),
        ),
        Operation(
            id="readKey",
            method="GET",
            paths=(_ONE,),
            handler=keys.read,
            scope=Scope.ADMIN,
            tag="Keys",
            summary="Read an API key",
            description="One that was revoked is gone, but for the list.",
            successes={200: Success("The key, without its secret.", key_view.KeyView)},
            problems=("key-not-found", "invalid", *STORED),
        ),
    ]


def _changing(keys: KeyRoutes) -> list[Operation]:
    return [
        Operation(
            id="createKey",
            method="POST",
            paths=(_KEYS,),
            handler=keys.create,
            scope=Scope.ADMIN,
            tag="Keys",
            summary="Make an API key",
            description="The answer shows the secret, and nothing else ever will.",
            body=schemas.KeyWish,
            body_limit=_BODY_BYTES,
            body_example={"name": "ci", "scopes": ["tasks:submit", "tasks:read"], "queues": ["mail*"]},
            successes={201: Success("Made.", key_view.KeyWithSecret, headers={"Location": "Path of the key."})},
            problems=(*BODY, "key-refused", *STORED),
        ),
        Operation(
            id="rotateKey",
            method="POST",
            paths=(_ONE + "/rotate",),
            handler=keys.rotate,
            scope=Scope.ADMIN,
            tag="Keys",
            summary="Give an API key another secret",
            description="The secret so far works as well until the grace is over, so that clients change over one by "
            "one; the one before that ends at once.",
            body=schemas.KeyRotation,
            body_limit=_BODY_BYTES,
            body_optional=True,
            body_example={"grace_seconds": 3600},
            successes={200: Success("The key with its new secret.", key_view.KeyWithSecret)},
            problems=(*BODY, "key-not-found", "key-refused", *STORED),
        ),
        Operation(
            id="revokeKey",
            method="DELETE",
            paths=(_ONE,),
            handler=keys.revoke,
            scope=Scope.ADMIN,
            tag="Keys",
            summary="End an API key for good",
            description="Every replica refuses it within two seconds, or ten where NOTIFY is not heard. Repeating it "
            "changes nothing.",
            successes={204: Success("Ended.", content_type="")},
            problems=("key-not-found", "invalid", *STORED),
        ),
    ]
