"""What is read from a token endpoint's answer, and what is never repeated."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena_async.auth.token_endpoint import DEFAULT_LIFETIME_S, Grant, TokenEndpointError, read_grant

CANARY = "canary-5c1d-token"
HOST = "issuer.example"


def body(**answer: object) -> bytes:
    return json.dumps(answer).encode()


@pytest.mark.parametrize(
    ("answer", "lifetime_s"),
    [
        (body(access_token="t", expires_in=86400, token_type="Bearer", scope="classify"), 86400.0),
        (body(access_token="t", expires_in="3600", token_type="bearer"), 3600.0),
        (body(access_token="t"), DEFAULT_LIFETIME_S),
    ],
)
def test_an_answer_with_a_token(answer: bytes, lifetime_s: float) -> None:
    assert read_grant(HOST, 200, answer) == Grant("t", lifetime_s)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>" + CANARY.encode(),
        b"[" * 100_000,
        body(token=CANARY),
        body(access_token=""),
        body(access_token=CANARY + "\n"),
        body(access_token=CANARY + " " + CANARY),
        body(access_token=CANARY + "é"),
        body(access_token=[CANARY]),
        body(access_token=CANARY * 1000),
        body(access_token=CANARY, token_type="mac"),
        body(access_token=CANARY, expires_in=0),
        body(access_token=CANARY, expires_in=-1),
        body(access_token=CANARY, expires_in="soon"),
        body(access_token=CANARY, expires_in=True),
        body(access_token=CANARY, expires_in=[1]),
        f'{{"access_token": "{CANARY}", "expires_in": 1{"0" * 400}}}'.encode(),
        f'{{"access_token": "{CANARY}", "expires_in": NaN}}'.encode(),
    ],
)
def test_an_answer_without_a_usable_token(answer: bytes) -> None:
    with pytest.raises(TokenEndpointError, match=r"issuer\.example answered without a usable bearer token") as caught:
        read_grant(HOST, 200, answer)
    assert CANARY not in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (401, "invalid_client", False),
        (403, "access_denied", False),
        (400, "unsupported_grant_type", False),
        (302, None, False),
        (404, None, False),
        (429, None, True),
        (500, None, True),
        (503, "temporarily_unavailable", True),
    ],
)
def test_an_error_names_status_code_and_remedy(status: int, code: str | None, retryable: bool) -> None:
    with pytest.raises(TokenEndpointError) as caught:
        read_grant(HOST, status, body(error=code, error_description=CANARY), 7.0)
    text = str(caught.value)
    assert text.startswith(f"the token endpoint {HOST} answered {status}")
    assert ("check oauth.client_id" in text) != retryable
    assert code is None or code in text
    assert CANARY not in text
    assert (caught.value.retryable, caught.value.retry_after_s) == (retryable, 7.0)


def test_an_unknown_error_code_is_not_repeated() -> None:
    with pytest.raises(TokenEndpointError) as caught:
        read_grant(HOST, 400, body(error=CANARY))
    assert CANARY not in str(caught.value)


@given(st.integers(100, 599), st.binary() | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
def test_any_answer_is_a_token_or_an_error(status: int, answer: bytes | str) -> None:
    with pytest.raises(TokenEndpointError):
        read_grant(HOST, status, answer.encode() if isinstance(answer, str) else answer)
