"""Who may call: looked at once, when a call begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from athena_async.emulator.auth import Authenticator, Unauthenticated
from athena_async.emulator.faults import Faults


class Admission:
    """Lets calls in, or ends them: without a token that counts, or by the fault plan."""

    def __init__(self, authenticator: Authenticator, faults: Faults) -> None:
        self._authenticator = authenticator
        self._faults = faults

    async def client_of(self, context: Any) -> str:
        """The calling client.

        Raises:
            grpc.aio.AbortError: the call is ended with UNAUTHENTICATED, or with the status of the fault plan.
        """
        if self._faults.strikes("refuse"):
            await context.abort(grpc.StatusCode[self._faults.plan.refuse_code], "Refused by the fault plan.")
        try:
            client = self._authenticator.client_of(_authorization(context.invocation_metadata()))
            if self._faults.strikes("expired_tokens"):
                raise Unauthenticated("the token has expired")
        except Unauthenticated as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"Not authenticated: {error}.")
            raise
        return client


def _authorization(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    return next((str(value) for key, value in metadata or () if key == "authorization"), None)
