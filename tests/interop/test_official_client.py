"""The official Python client, unchanged, against the emulator: over TLS, with tokens from its endpoint."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from athena_async.emulator.clock import ScaledClock
from athena_async.emulator.oauth import TokenIssuer
from athena_async.emulator.process import EmulatorProcess
from athena_async.emulator.scoring import score

Run = Callable[..., Any]

COMMON = """
import base64, grpc, logging, os
logging.disable(logging.CRITICAL)
from resolver_athena_client.client.athena_client import AthenaClient
from resolver_athena_client.client.athena_options import AthenaOptions
from resolver_athena_client.client.channel import CredentialHelper, create_channel_with_credentials
from resolver_athena_client.client.deployment_selector import DeploymentSelector
from resolver_athena_client.client.exceptions import AthenaError, OAuthError
from resolver_athena_client.client.models import ImageData

def helper():
    return CredentialHelper(
        client_id=values.get("client_id", "interop"),
        client_secret=values.get("client_secret", "interop-secret"),
        auth_url=values["oauth"] + "/oauth/token",
        audience=values.get("audience", "crisp-athena-live"),
    )

def options(**changes):
    return AthenaOptions(host=values["host"], affiliate=values.get("affiliate", "acme"), **changes)

def labels(output):
    return {c.label: c.weight for c in output.classifications}

async def describe(work):
    try:
        return {"result": await work}
    except grpc.aio.AioRpcError as error:
        return {"status": error.code().name, "details": error.details()}
    except (AthenaError, OAuthError) as error:
        return {"error": type(error).__name__, "message": str(error)}

def finish(answer):
    print(json.dumps(answer), flush=True)
    os._exit(0)  # its workers swallow cancellation and would keep the process
"""

SINGLE = (
    COMMON
    + """
async def single():
    channel = await create_channel_with_credentials(values["host"], helper())
    async with AthenaClient(channel, options(compress_images=values.get("compress", False),
                                             compression_quality=1)) as client:
        output = await client.classify_single(ImageData(open(values["path"], "rb").read(), "one"))
        return {"id": output.correlation_id, "labels": labels(output)}

async def main():
    finish(await describe(single()))

asyncio.run(main())
"""
)

STREAM = (
    COMMON
    + """
async def images():
    for name, data in values["images"].items():
        yield ImageData(base64.b64decode(data), name)

async def stream():
    channel = await create_channel_with_credentials(values["host"], helper())
    found = {}
    async with AthenaClient(channel, options(
        deployment_id=values["deployment"], compress_images=False, resize_images=values["resize"], max_batch_size=5,
    )) as client:
        async for response in client.classify_images(images()):
            for output in response.outputs:
                found[output.correlation_id] = {"labels": labels(output), "error": output.error.message}
            if len(found) == len(values["images"]):
                async with DeploymentSelector(channel) as selector:
                    rows = (await selector.list_deployments()).deployments
                finish({"result": found, "deployments": {row.deployment_id: row.backlog for row in rows}})

async def main():
    finish(await describe(stream()))

asyncio.run(main())
"""
)

TOKEN = (
    COMMON
    + """
class Fixed(CredentialHelper):
    # The official class with a token of our own; everything from there on is the official client's.
    def _refresh_token(self):
        from resolver_athena_client.client.channel import TokenData
        import time
        now = time.time()
        self._token_data = TokenData(values["token"], now + 3600, "Bearer", now, 0.25)

async def ask():
    fixed = Fixed("interop", "interop-secret", values["oauth"] + "/oauth/token")
    channel = await create_channel_with_credentials(values["host"], fixed)
    async with AthenaClient(channel, options(compress_images=False)) as client:
        return (await client.classify_single(ImageData(open(values["path"], "rb").read(), "one"))).correlation_id

async def main():
    finish(await describe(ask()))

asyncio.run(main())
"""
)


def encoded(image: Image.Image, kind: str, **parameters: object) -> str:
    out = io.BytesIO()
    image.save(out, kind, **parameters)
    return base64.b64encode(out.getvalue()).decode()


@pytest.fixture
def picture(photographs: Path) -> Image.Image:
    with Image.open(photographs / "chelsea.png") as image:
        return image.convert("RGB").resize((448, 448))


def expected_labels(path: Path) -> dict[str, float]:
    """What the pixels that the official client makes of a file score."""
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert decoded is not None
    pixels = np.asarray(cv2.resize(decoded, (448, 448), interpolation=cv2.INTER_LINEAR))
    return {c.label: c.weight for c in score(pixels)}


@pytest.mark.parametrize("compress", [False, True])
def test_single(official: Run, photographs: Path, compress: bool) -> None:
    path = photographs / "rocket.jpg"
    answer = official(SINGLE, path=str(path), compress=compress)["result"]
    assert answer["id"] == "one"
    known = {label: weight for label, weight in answer["labels"].items() if label.startswith("Known")}
    assert known == {"KnownCSAM-MD5": 0.0}
    scores = {label: weight for label, weight in answer["labels"].items() if label not in known}
    assert scores == pytest.approx(expected_labels(path), abs=1e-6)


@pytest.mark.parametrize("resize", [True, False], ids=["resized", "as-they-are"])
def test_streaming_with_every_format(official: Run, picture: Image.Image, resize: bool) -> None:
    """Those that it tells apart as they are; those that it decodes as the raw frames it makes of them."""
    images = {kind: encoded(picture, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")}
    images["RAW"] = base64.b64encode(picture.tobytes("raw", "BGR")).decode()
    lossless = {"PNG", "BMP", "TIFF", "RAW"}
    if resize:
        images |= {extension: encoded_by_opencv(picture, extension) for extension in (".ppm", ".pnm", ".sr", ".hdr")}
        images |= {mode: encoded(picture.convert(mode), "PPM") for mode in ("L", "1")}
        lossless |= {".ppm", ".pnm", ".sr"}
    deployment = f"formats-{resize}"
    answer = official(STREAM, images=images, deployment=deployment, resize=resize)
    assert set(answer["result"]) == set(images)
    assert not any(found["error"] for found in answer["result"].values())
    labels = [answer["result"][name]["labels"] for name in sorted(lossless)]
    assert len(labels[0]) == 8
    assert all(found == labels[0] for found in labels)
    assert answer["deployments"][deployment] == 0


def encoded_by_opencv(image: Image.Image, extension: str) -> str:
    pixels = np.asarray(image)[:, :, ::-1]
    done, out = cv2.imencode(extension, pixels.astype(np.float32) / 255.0 if extension == ".hdr" else pixels)
    assert done
    return base64.b64encode(out).decode()


def test_a_bad_image_within_a_stream_of_32_fails_alone(official: Run, picture: Image.Image) -> None:
    good = encoded(picture, "JPEG")
    images = {f"image-{n:02}": good for n in range(32)}
    images["image-17"] = encoded(picture.resize((100, 100)), "PNG")
    answer = official(STREAM, images=images, deployment="with-a-bad-one", resize=False)["result"]
    assert len(answer) == 32
    assert "Image Classification Error" in answer.pop("image-17")["error"]
    assert all(found["labels"] and not found["error"] for found in answer.values())


def test_a_wrong_affiliate(official: Run, photographs: Path, picture: Image.Image) -> None:
    message = "Affiliate ID 'stranger' is not permitted for this client or does not have Athena enabled."
    single = official(SINGLE, path=str(photographs / "rocket.jpg"), affiliate="stranger")
    assert single == {"error": "AthenaError", "message": message}
    stream = official(
        STREAM, images={"one": encoded(picture, "PNG")}, deployment="x", resize=False, affiliate="stranger"
    )
    assert stream == {"error": "AthenaError", "message": message}


@pytest.mark.parametrize(
    "changes",
    [{"client_id": "stranger"}, {"client_secret": "wrong"}, {"audience": "another"}],
    ids=["client", "secret", "audience"],
)
def test_a_wrong_oauth_client_secret_or_audience(official: Run, photographs: Path, changes: dict[str, str]) -> None:
    answer = official(SINGLE, path=str(photographs / "rocket.jpg"), **changes)
    assert answer["status"] in ("UNAVAILABLE", "UNAUTHENTICATED")
    assert "OAuth request failed with status 40" in answer["details"]


def test_bad_foreign_and_expired_tokens(official: Run, athena: EmulatorProcess, photographs: Path) -> None:
    path = str(photographs / "rocket.jpg")
    foreign = TokenIssuer("crisp-athena-live", 3600.0, ScaledClock()).issue("interop", str(athena.oauth_url))
    for token in ("nonsense", foreign):
        assert official(TOKEN, path=path, token=token)["status"] == "UNAUTHENTICATED"
    assert official(TOKEN, path=path, token="static-key")["result"] == "one"
    athena.inject("expired_tokens")
    answer = official(TOKEN, path=path, token="static-key")
    assert answer["status"] == "UNAUTHENTICATED"
    assert "expired" in answer["details"]


EXPIRING = (
    COMMON
    + """
async def main():
    channel = await create_channel_with_credentials(values["host"], helper())
    async with AthenaClient(channel, options(compress_images=False)) as client:
        answers = []
        for _ in range(2):
            image = ImageData(open(values["path"], "rb").read(), "one")
            answers.append(await describe(client.classify_single(image)))
            await asyncio.sleep(0.5)
        del answers[1]["details"]
        finish(answers[1])

asyncio.run(main())
"""
)


def test_a_token_that_expired_under_way(official: Run, photographs: Path, athena: EmulatorProcess) -> None:
    """The client believes in it for an hour, which passes in a tenth of a second."""
    assert athena.ca is not None
    with EmulatorProcess(
        tls_dir=str(Path(athena.ca).parent),
        oauth_port=0,
        oauth_clients={"interop": "interop-secret"},
        time_scale=36_000.0,
    ) as fast:
        answer = official(EXPIRING, path=str(photographs / "rocket.jpg"), host=fast.address, oauth=fast.oauth_url)
        assert answer == {"status": "UNAUTHENTICATED"}
