"""What a type checker must refuse: each line ignores one error, and strict mypy reports an ignore without one."""

from __future__ import annotations

from athena_async import AthenaClient, ClientConfig, ImageInput, LimitsConfig, PoolConfig


def wrong_configurations() -> None:
    ClientConfig(("host:443",))  # type: ignore[call-arg]
    ClientConfig(timeout=5.0)  # type: ignore[call-arg]
    ClientConfig(timeout_s="5")  # type: ignore[arg-type]
    ClientConfig(pool={"channels": 2})  # type: ignore[arg-type]
    PoolConfig(balancer="fastest")  # type: ignore[arg-type]
    LimitsConfig(max_in_flight=None)  # type: ignore[arg-type]
    ImageInput(b"bytes of a file")  # type: ignore[call-arg]
    ImageInput(md5=b"digest")  # type: ignore[arg-type]


def configuration_is_frozen(config: ClientConfig) -> None:
    config.timeout_s = 5.0  # type: ignore[misc]


async def wrong_calls(client: AthenaClient) -> None:
    await client.classify_many(5)  # type: ignore[arg-type]
    await client.stream([b""])  # type: ignore[misc]
    await client.stats()  # type: ignore[misc]
    for _ in client.stream([b""]):  # type: ignore[attr-defined]
        pass
    client.classify(b"").ok  # type: ignore[attr-defined]  # noqa: B018
    with client:  # type: ignore[attr-defined]
        pass
