"""The three RPCs and both levels of error, over a socket."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import brotli
import grpc
import pytest
from google.protobuf import empty_pb2
from PIL import Image

from athena_async.emulator import Behaviour, Emulator

pytestmark = pytest.mark.anyio

NOT_PERMITTED = "Affiliate ID 'other' is not permitted for this client or does not have Athena enabled."


def labels(output: Any) -> dict[str, float]:
    return {c.label: c.weight for c in output.classifications}


async def test_single_and_stream_score_the_same_pixels_the_same(lab: SimpleNamespace, frame: bytes) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        single = await stub.ClassifySingle(lab.item("one", frame))
        call = stub.Classify()
        await call.write(lab.request(lab.item("two", frame)))
        streamed = (await call.read()).outputs[0]
        assert (single.correlation_id, streamed.correlation_id) == ("one", "two")
        assert labels(single) == labels(streamed)
        assert len(labels(single)) == 8
        assert not single.HasField("error")


async def test_a_client_that_half_closes_gets_all_its_answers_and_ok(lab: SimpleNamespace, frame: bytes) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify(iter([lab.request(lab.item(f"{n}", frame)) for n in range(5)]))
        found = {output.correlation_id async for response in call for output in response.outputs}
        assert found == {"0", "1", "2", "3", "4"}
        assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_without_any_request_ends_well(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        assert (await lab.status_of(stub.Classify(iter([]))))[0] is grpc.StatusCode.OK


async def test_keep_alives_are_not_answered_and_keep_the_stream(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        for _ in range(3):
            await call.write(lab.request())
        await call.write(lab.request(lab.item("one")))
        assert await lab.read_ids(call, 1) == ["one"]
        assert emulator.live_streams == 1
        assert len(emulator.audit) == 1


async def test_deployments_are_listed_with_their_backlog(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        assert not (await stub.ListDeployments(empty_pb2.Empty())).deployments
        emulator.hold()
        call = stub.Classify()
        await call.write(lab.request(*(lab.item(f"{n}") for n in range(7)), deployment_id="busy"))
        await lab.until(lambda: len(emulator.audit) == 7)
        rows = (await stub.ListDeployments(empty_pb2.Empty())).deployments
        assert [(row.deployment_id, row.backlog) for row in rows] == [("busy", 7)]
        emulator.release()
        await lab.read_ids(call, 7)
        rows = (await stub.ListDeployments(empty_pb2.Empty())).deployments
        assert [(row.deployment_id, row.backlog) for row in rows] == [("busy", 0)]


@pytest.mark.parametrize("deployment_id", ["", "x" * 65])
async def test_an_invalid_deployment_id_is_a_global_error_and_the_end(lab: SimpleNamespace, deployment_id: str) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("one"), deployment_id=deployment_id))
        response = await call.read()
        assert response.global_error.code == lab.m.ERROR_CODE_DEPLOYMENT_ID_INVALID
        assert not response.outputs
        assert (await lab.status_of(call))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert len(emulator.audit) == 0


async def test_a_deployment_id_of_64_characters_is_valid(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("one"), deployment_id="ü" * 64))
        assert await lab.read_ids(call, 1) == ["one"]


async def test_a_second_deployment_id_aborts_the_stream(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("one"), deployment_id="first"))
        await lab.read_ids(call, 1)
        await call.write(lab.request(lab.item("two"), deployment_id="second"))
        code, details = await lab.status_of(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "second" in details
        assert [row.deployment_id for row in emulator.deployments.all()] == ["first"]


async def test_an_affiliate_that_is_not_permitted_fails_the_whole_request_and_no_other(lab: SimpleNamespace) -> None:
    async with Emulator(affiliates=("acme",)) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("one"), lab.item("two", affiliate="other")))
        response = await call.read()
        assert response.global_error.code == lab.m.ERROR_CODE_AFFILIATE_NOT_PERMITTED
        assert response.global_error.message == NOT_PERMITTED
        assert not response.outputs
        await call.write(lab.request(lab.item("three")))
        assert await lab.read_ids(call, 1) == ["three"]
        assert [r.outcome for r in emulator.audit] == ["AFFILIATE_NOT_PERMITTED"] * 2 + ["CLASSIFIED"]
        assert emulator.audit.billed_count == 1


async def test_an_affiliate_that_is_not_permitted_is_an_output_error_of_a_single_image(lab: SimpleNamespace) -> None:
    async with Emulator(affiliates=("acme",)) as emulator, lab.connect(emulator.address) as stub:
        output = await stub.ClassifySingle(lab.item("one", affiliate="other"))
        assert output.error.code == lab.m.ERROR_CODE_AFFILIATE_NOT_PERMITTED
        assert output.error.message == NOT_PERMITTED


async def test_affiliates_are_permitted_by_client(lab: SimpleNamespace) -> None:
    affiliates = {"a": ("acme",), "b": ("other",)}
    keys = ("a=ka", "b=kb")
    async with Emulator(api_keys=keys, affiliates=affiliates) as emulator, lab.connect(emulator.address) as stub:
        for token, good, bad in (("ka", "acme", "other"), ("kb", "other", "acme")):
            for name, refused in ((good, False), (bad, True)):
                output = await stub.ClassifySingle(lab.item("x", affiliate=name), metadata=lab.bearer(token))
                assert output.HasField("error") is refused
        assert [(r.client, r.affiliate) for r in emulator.audit if r.billed] == [("a", "acme"), ("b", "other")]


@pytest.mark.parametrize("correlation_id", ["", "x" * 65])
async def test_an_invalid_correlation_id_fails_its_input_alone(lab: SimpleNamespace, correlation_id: str) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("good"), lab.item(correlation_id)))
        good, bad = (await call.read()).outputs
        assert not good.HasField("error")
        assert bad.correlation_id == correlation_id
        assert bad.error.code == lab.m.ERROR_CODE_CORRELATION_ID_INVALID
        single = await stub.ClassifySingle(lab.item(correlation_id))
        assert single.error.code == lab.m.ERROR_CODE_CORRELATION_ID_INVALID


async def test_a_correlation_id_is_unique_while_it_is_unanswered(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        call = stub.Classify()
        await call.write(lab.request(lab.item("same"), lab.item("same")))
        await call.write(lab.request(lab.item("same")))
        await call.write(lab.request(lab.item("same"), deployment_id="d"))
        await lab.until(lambda: len(emulator.audit) == 4)
        emulator.release()
        outcomes = [record.outcome for record in emulator.audit]
        assert sorted(outcomes) == ["CLASSIFIED"] + ["CORRELATION_ID_INVALID"] * 3
        await lab.read_ids(call, 4)
        await call.write(lab.request(lab.item("same")))
        assert not (await call.read()).outputs[0].HasField("error")


async def test_an_id_may_be_used_in_another_deployment(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        emulator.hold()
        calls = [stub.Classify(), stub.Classify()]
        for name, call in zip("ab", calls, strict=True):
            await call.write(lab.request(lab.item("same"), deployment_id=name))
        await lab.until(lambda: len(emulator.audit) == 2)
        assert emulator.audit.outcomes() == {"CLASSIFIED": 2}


async def test_duplicate_ids_may_be_accepted(lab: SimpleNamespace) -> None:
    behaviour = Behaviour(duplicate_ids="accept")
    async with Emulator(behaviour=behaviour) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(lab.item("same"), lab.item("same")))
        assert not any(output.HasField("error") for output in (await call.read()).outputs)


async def test_a_bad_image_fails_alone(lab: SimpleNamespace, frame: bytes) -> None:
    async with Emulator(max_image_bytes=700_000) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        small = io.BytesIO()
        Image.new("RGB", (10, 10)).save(small, "PNG")
        bad = {
            "broken": {"data": b"\xff\xd8\xff broken", "format": lab.m.IMAGE_FORMAT_JPEG},
            "small": {"data": small.getvalue(), "format": lab.m.IMAGE_FORMAT_PNG},
            "brotli": {"data": b"no", "encoding": lab.m.REQUEST_ENCODING_BROTLI, "format": 19},
            "bomb": {"data": brotli.compress(bytes(10_000_000)), "encoding": 2, "format": 19},
            "large": {"data": bytes(700_001), "format": 19},
            "nothing": {"hashes": []},
            "hash": {"hashes": [lab.m.ImageHash(value="zz", type=1)]},
        }
        await call.write(lab.request(lab.item("good", frame), *(lab.item(k, **v) for k, v in bad.items())))
        outputs = {output.correlation_id: output for output in (await call.read()).outputs}
        assert not outputs.pop("good").HasField("error")
        for name in ("bomb", "large"):
            assert outputs.pop(name).error.code == lab.m.ERROR_CODE_IMAGE_TOO_LARGE
        assert set(outputs) == {"broken", "small", "brotli", "nothing", "hash"}
        for output in outputs.values():
            assert output.error.code == lab.m.ERROR_CODE_UNSPECIFIED
            assert "Image Classification Error" in output.error.message
            assert not output.classifications


async def test_brotli_and_encoded_images_score_as_their_pixels(lab: SimpleNamespace, frame: bytes) -> None:
    picture = Image.frombytes("RGB", (448, 448), frame, "raw", "BGR")
    png = io.BytesIO()
    picture.save(png, "PNG")
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        raw = await stub.ClassifySingle(lab.item("raw", frame))
        packed = await stub.ClassifySingle(lab.item("b", brotli.compress(frame, quality=1), encoding=2))
        encoded = await stub.ClassifySingle(lab.item("p", png.getvalue(), format=lab.m.IMAGE_FORMAT_PNG))
        assert labels(raw) == labels(packed) == labels(encoded)


async def test_known_labels_only_for_hashes_sent_and_no_others_after_a_match(
    lab: SimpleNamespace, frame: bytes, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    known.write_text("a" * 32 + "\n" + "b" * 40)
    md5, sha1 = lab.m.HASH_TYPE_MD5, lab.m.HASH_TYPE_SHA1

    def hashes(*pairs: tuple[str, int]) -> list[Any]:
        return [lab.m.ImageHash(value=value, type=kind) for value, kind in pairs]

    async with Emulator(known_hashes=known) as emulator, lab.connect(emulator.address) as stub:

        async def ask(data: bytes, *pairs: tuple[str, int]) -> dict[str, float]:
            return labels(await stub.ClassifySingle(lab.item("x", data, hashes=hashes(*pairs))))

        assert await ask(b"", ("A" * 32, md5)) == {"KnownCSAM-MD5": 1.0}
        assert await ask(b"", ("c" * 32, md5)) == {"KnownCSAM-MD5": 0.0}
        assert await ask(b"", ("c" * 32, md5), ("a" * 32, md5)) == {"KnownCSAM-MD5": 1.0}
        assert await ask(b"", ("c" * 32, md5), ("b" * 40, sha1)) == {"KnownCSAM-MD5": 0.0, "KnownCSAM-SHA1": 1.0}
        assert await ask(frame, ("a" * 32, md5)) == {"KnownCSAM-MD5": 1.0}
        scored = await ask(frame, ("c" * 32, md5))
        assert scored["KnownCSAM-MD5"] == 0.0
        assert len(scored) == 9
        assert not any(label.startswith("Known") for label in await ask(frame))


async def test_expected_outputs_by_pixels_and_by_hash(lab: SimpleNamespace, frame: bytes, tmp_path: Path) -> None:
    picture = Image.frombytes("RGB", (448, 448), frame, "raw", "BGR").resize((900, 700))
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "one.png")
    Image.effect_noise((500, 500), 90.0).convert("RGB").save(tmp_path / "images" / "two.png")
    digest = hashlib.md5((tmp_path / "images" / "two.png").read_bytes()).hexdigest()
    file = tmp_path / "expected_outputs.json"
    rows = [["one.png", [0.25, 0.75]], ["two.png", [1.0, 0.0]]]
    file.write_text(json.dumps({"classification_labels": ["UnknownCSAM-Ducks", "UnknownCSAM-Goose"], "images": rows}))
    async with Emulator(expected_outputs=file) as emulator, lab.connect(emulator.address) as stub:
        assert labels(await stub.ClassifySingle(lab.item("x", frame))) == {
            "UnknownCSAM-Ducks": 0.25,
            "UnknownCSAM-Goose": 0.75,
        }
        hashed = lab.item("y", bytes(602_112), hashes=[lab.m.ImageHash(value=digest, type=1)])
        assert labels(await stub.ClassifySingle(hashed))["UnknownCSAM-Ducks"] == 1.0
        assert len(labels(await stub.ClassifySingle(lab.item("z", bytes(602_112))))) == 8


async def test_the_message_size_limit_is_grpcs_own_and_settable(lab: SimpleNamespace, frame: bytes) -> None:
    seven = lab.request(*(lab.item(f"{n}", frame) for n in range(7)))
    async with Emulator() as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(seven)
        code, details = await lab.status_of(call)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in details
    async with Emulator(max_message_bytes=8 << 20) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(seven)
        assert len(await lab.read_ids(call, 7)) == 7


async def test_bytes_that_are_no_request_end_the_stream(lab: SimpleNamespace) -> None:
    async with Emulator() as emulator, grpc.aio.insecure_channel(emulator.address) as channel:
        call = channel.stream_stream("/athena.ClassifierService/Classify")()
        await call.write(b"\xff\xff\xff")
        assert (await lab.status_of(call))[0] is grpc.StatusCode.INTERNAL


async def test_answers_may_be_cut_into_smaller_responses(lab: SimpleNamespace) -> None:
    behaviour = Behaviour(outputs_per_response=2)
    async with Emulator(behaviour=behaviour) as emulator, lab.connect(emulator.address) as stub:
        call = stub.Classify()
        await call.write(lab.request(*(lab.item(f"{n}") for n in range(5))))
        assert [len((await call.read()).outputs) for _ in range(3)] == [2, 2, 1]


async def test_the_audit_has_metadata_and_nothing_of_the_image(
    lab: SimpleNamespace, frame: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "audit.jsonl"
    async with Emulator(audit_path=file) as emulator, lab.connect(emulator.address) as stub:
        await stub.ClassifySingle(lab.item("single", frame))
        call = stub.Classify()
        await call.write(lab.request(lab.item("streamed", hashes=[lab.m.ImageHash(value="abcdef01" * 4, type=1)])))
        await lab.read_ids(call, 1)
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first["rpc"] == "ClassifySingle"
    assert first["deployment"] is None
    assert first["size_bytes"] == len(frame)
    assert {key: second[key] for key in ("client", "affiliate", "deployment", "correlation_id", "outcome")} == {
        "client": "anonymous",
        "affiliate": "acme",
        "deployment": "d",
        "correlation_id": "streamed",
        "outcome": "CLASSIFIED",
    }
    assert "abcdef01" not in file.read_text()
    assert emulator.audit[1].correlation_id == "streamed"


async def test_two_emulators_do_not_share_a_port() -> None:
    async with Emulator() as emulator:
        with pytest.raises(OSError, match=str(emulator.port)):
            await Emulator(port=emulator.port).start()


async def test_it_has_no_address_before_it_runs() -> None:
    emulator = Emulator()
    with pytest.raises(RuntimeError):
        _ = emulator.address
    with pytest.raises(RuntimeError):
        emulator.hold()
    assert emulator.live_streams == 0
    await emulator.stop()


async def test_it_listens_on_ipv6_as_well(lab: SimpleNamespace) -> None:
    async with Emulator(host="::1", admin_port=0) as emulator, lab.connect(emulator.address) as stub:
        assert emulator.address == f"[::1]:{emulator.port}"
        assert str(emulator.admin_url).startswith("http://[::1]:")
        assert (await stub.ClassifySingle(lab.item("one"))).correlation_id == "one"
