"""A program that lets everything happen that may be logged, printed or raised: run by `test_canaries`.

It plants a token, a client secret, image bytes and hashes, turns every output on, and prints reprs and tracebacks.
Standard output and standard error together are what the test searches.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
import tempfile
import traceback
from pathlib import Path

from athena_async import AthenaClient, ClientConfig, ImageInput, OAuthConfig, PoolConfig, RetryConfig, TlsConfig
from athena_async.emulator import Emulator, ServiceModel
from athena_async.errors import AthenaError
from athena_async.events import Event
from athena_async.observability.logs import LogObserver, configure_logs
from athena_async.observability.metrics import PrometheusObserver
from athena_async.observability.tracing import TracingObserver

KEY = "canary-api-key-77aa21"
SECRET = "canary-secret-51bd90"
MARKER = b"canary-image-bytes-9913"
MD5 = hashlib.md5(MARKER).hexdigest()
SHA1 = hashlib.sha1(MARKER).hexdigest()


def good_image() -> bytes:
    """A PPM whose pixels are the marker."""
    pixels = (MARKER * 100)[: 16 * 16 * 3]
    return b"P6 16 16 255\n" + pixels


def images() -> list[object]:
    broken = b"\x89PNG\r\n\x1a\n" + MARKER * 20
    return [
        good_image(),
        broken,
        MARKER * 10,
        ImageInput(md5=MD5, sha1=SHA1),
        ImageInput(data=good_image(), md5=MD5, sha1=SHA1, affiliate="forbidden"),
        ImageInput(data=broken),
        b"",
        Path("/nowhere/at/all.png"),
    ] * 3


def show(*things: object) -> None:
    """Everything that a program might print of these."""
    for thing in things:
        print(repr(thing), str(thing))
        error = getattr(thing, "error", thing)
        if isinstance(error, BaseException):
            print("".join(traceback.format_exception(error)))


async def classify(client: AthenaClient, emulator: Emulator) -> None:
    """Well, with streams that end, with errors of every kind, alone and together, and broken off."""
    inputs = [image for image in images() if isinstance(image, ImageInput)]
    show(client, client.config, *inputs, *(await client.classify_many(images())))
    emulator.faults.inject("drop_streams", 2)
    emulator.faults.update(image_errors=1.0)
    show(*(await client.classify_many(images())))
    emulator.faults.update(image_errors=0.0)
    for image in images()[:7]:
        try:
            show(await client.classify_single(image))
            show(await client.classify(image))
        except AthenaError as error:
            show(error)
            logging.getLogger("program").exception("failed")
    pending = asyncio.create_task(client.classify_many(images()))
    await asyncio.sleep(0.05)
    show(pending, client.stats(), client._engine, *asyncio.all_tasks())
    emulator.drop_streams()
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)


async def run_with(emulator: Emulator, **credentials: object) -> None:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest

    seen: list[Event] = []
    registry = CollectorRegistry()
    settings = ClientConfig(
        endpoints=(emulator.address,),
        affiliate="acme",
        tls=TlsConfig(ca=emulator.ca),
        timeout_s=4.0,
        pool=PoolConfig(probe_interval_s=0.1),
        retry=RetryConfig(base_s=0.01, cap_s=0.1, grace_min_s=0.1, grace_max_s=0.5),
        **credentials,  # type: ignore[arg-type]
    )
    observers = [LogObserver(), PrometheusObserver(registry), TracingObserver(), seen.append]
    client = AthenaClient(settings, observers=observers)
    async with client:
        await classify(client, emulator)
        report = await client.aclose(drain_timeout_s=0.0)
    show(report, client, client.stats(), *seen)
    print(generate_latest(registry).decode())


async def main() -> None:
    asyncio.get_running_loop().slow_callback_duration = 0.0  # every callback's repr is logged
    with tempfile.TemporaryDirectory() as folder:
        async with Emulator(
            tls_dir=Path(folder) / "tls",
            api_keys=(f"team={KEY}",),
            affiliates=["acme"],
            oauth_port=0,
            oauth_tls=True,
            oauth_clients={"team": SECRET},
            model=ServiceModel(fixed_s=0.02),
        ) as emulator:
            url = f"{emulator.oauth_url}/oauth/token"
            oauth = OAuthConfig(client_id="team", client_secret=SECRET, auth_url=url, ca=emulator.ca)
            wrong = OAuthConfig(client_id="team", client_secret=SECRET + "-no", auth_url=url, ca=emulator.ca)
            (Path(folder) / "key").write_text(KEY)
            for credentials in (
                {"api_key": KEY},
                {"api_key_file": Path(folder) / "key"},
                {"api_key": KEY + "-no"},
                {"oauth": oauth},
                {"oauth": wrong},
            ):
                emulator.faults.update(image_errors=0.0, expired_tokens=0.2 if credentials.get("oauth") else 0.0)
                await run_with(emulator, **credentials)
    print("the run is over", file=sys.stderr)


if __name__ == "__main__":
    configure_logs(json="json" in sys.argv, level="DEBUG")
    logging.getLogger().setLevel(logging.DEBUG)
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.DEBUG)
        for rule in list(handler.filters):
            handler.removeFilter(rule)
    asyncio.run(main(), debug=True)
