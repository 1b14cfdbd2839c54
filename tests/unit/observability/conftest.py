"""One event of each kind."""

from __future__ import annotations

from athena_async import events
from athena_async.errors import ErrorCode
from athena_async.results import Outcome

ENDPOINT = "athena.example:443"
CANARY_TOKEN = "eyJhbGciOiJSUzI1NiJ9.canary-token.c2ln"
CANARY_HASH = "900150983cd24fb0d6963f7d28e17f72"

OPENED = events.Opened(1.0, "team-7", "acme", False)

ALL = (
    OPENED,
    events.ImagesAccepted(1.0, 50),
    events.ImagesPrepared(1.0, 48, 2, 5000, 4000, 0.02),
    events.BatchSent(1.0, ENDPOINT, 1, 48, 4000, 3),
    events.BatchAnswered(1.0, ENDPOINT, 1, 48, 4000, 0.03, "image-1"),
    events.ImagesSettled(1.0, {Outcome.CLASSIFIED: 48, Outcome.FAILED: 2}, {ErrorCode.INVALID_IMAGE: 2}, 0.06),
    events.StreamOpened(1.0, ENDPOINT, 1),
    events.StreamClosed(
        1.0, ENDPOINT, 1, "UNAUTHENTICATED", f"Bearer {CANARY_TOKEN} refused, {CANARY_TOKEN}, {CANARY_HASH}", 7
    ),
    events.EndpointEjected(1.0, ENDPOINT, f"3 failures: Bearer {CANARY_TOKEN}", 5.0),
    events.EndpointReturned(1.0, ENDPOINT),
    events.PoolResized(1.0, ENDPOINT, 3, "unacknowledged bytes"),
    events.ImagesRecovered(1.0, 4, 3),
    events.GlobalErrorReceived(1.0, ENDPOINT, ErrorCode.MODEL_ERROR, f"hash {CANARY_HASH}", 5),
    events.StrayAnswers(1.0, 1, 2, 0),
    events.CredentialsRefreshed(1.0, "ahead of expiry"),
    events.EncodingChanged(1.0, "webp", "writes wait"),
    events.Drained(1.0, 2),
)
