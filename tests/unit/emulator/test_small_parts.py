"""Clocks, the audit, the test authority, the sink's scanner."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from athena_async._proto.athena import models_pb2
from athena_async.emulator import AuditLog, AuditRecord, ManualClock, ScaledClock
from athena_async.emulator.sink import MalformedRequest, answer_request, answer_single
from athena_async.emulator.tls import TestAuthority
from athena_async.errors import ConfigError


def record(correlation_id: str = "id", outcome: str = "CLASSIFIED", deployment: str | None = "d") -> AuditRecord:
    return AuditRecord(
        at=1.5,
        client="client",
        affiliate="acme",
        deployment=deployment,
        correlation_id=correlation_id,
        size_bytes=10,
        outcome=outcome,
        rpc="Classify",
        billed=outcome == "CLASSIFIED",
    )


def test_a_manual_clock_moves_by_hand_and_forwards() -> None:
    clock = ManualClock(10.0)
    clock.advance(5.0)
    assert clock.now() == 15.0
    with pytest.raises(ConfigError):
        clock.advance(-1.0)


def test_a_scaled_clock_runs_faster() -> None:
    slow, fast = ScaledClock(1.0), ScaledClock(1e9)
    begin = fast.now(), slow.now()
    while fast.now() == begin[0]:
        pass
    assert fast.now() - begin[0] > 100 * (slow.now() - begin[1])


def test_the_audit_is_bounded_in_memory_and_whole_on_disk(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl", limit=2)
    audit.open()
    audit.add([record("one"), record("two", "MODEL_ERROR"), record("two")])
    audit.close()
    assert [found.correlation_id for found in audit] == ["two", "two"]
    assert (audit.total, audit.dropped, audit.billed_count) == (3, 1, 1)
    assert audit.outcomes() == {"MODEL_ERROR": 1, "CLASSIFIED": 1}
    assert audit.sends() == {("d", "two"): 2}
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["correlation_id"] for line in lines] == ["one", "two", "two"]
    assert set(lines[0]) == {
        "at",
        "client",
        "affiliate",
        "deployment",
        "correlation_id",
        "size_bytes",
        "outcome",
        "rpc",
        "billed",
    }


def test_the_authority_is_written_once_with_private_keys(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "tls"
    first = TestAuthority.ensure(folder)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"ca.pem", "server.pem", "server.key", "client.pem", "client.key"} <= set(content)
    assert all(os.stat(folder / name).st_mode & 0o077 == 0 for name in content if name.endswith(".key"))
    TestAuthority.ensure(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert first.ca == folder / "ca.pem"


def test_the_server_certificate_is_for_the_local_names_and_by_the_ca(tmp_path: Path) -> None:
    authority = TestAuthority.ensure(tmp_path)
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    ca = x509.load_pem_x509_certificate(authority.ca.read_bytes())
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(found) for found in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    strict = ssl.create_default_context(cafile=str(authority.ca))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    assert strict.get_ca_certs()


def test_files_of_ones_own_are_taken(tmp_path: Path) -> None:
    TestAuthority.ensure(tmp_path)
    for name in ("ca.key", "client.pem", "client.key"):
        (tmp_path / name).unlink()
    TestAuthority.ensure(tmp_path)
    assert not (tmp_path / "ca.key").exists()


@pytest.mark.parametrize("spoil", ["missing", "broken"])
def test_half_a_folder_is_refused(tmp_path: Path, spoil: str) -> None:
    TestAuthority.ensure(tmp_path)
    if spoil == "missing":
        (tmp_path / "server.key").unlink()
    else:
        (tmp_path / "server.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="tls_dir"):
        TestAuthority.ensure(tmp_path)


inputs = st.builds(
    models_pb2.ClassificationInput,
    affiliate=st.text(max_size=200),
    correlation_id=st.text(max_size=200),
    data=st.binary(max_size=300),
    encoding=st.sampled_from([0, 1, 2]),
    format=st.sampled_from([0, 2, 19]),
    hashes=st.lists(st.builds(models_pb2.ImageHash, value=st.text(max_size=50), type=st.sampled_from([1, 2]))),
)


@given(st.text(max_size=100), st.lists(inputs, max_size=20))
def test_the_sink_finds_every_correlation_id(deployment_id: str, found: list[models_pb2.ClassificationInput]) -> None:
    request = models_pb2.ClassifyRequest(deployment_id=deployment_id, inputs=found)
    data, count = answer_request(request.SerializeToString())
    response = models_pb2.ClassifyResponse.FromString(data)
    assert [output.correlation_id for output in response.outputs] == [item.correlation_id for item in found]
    assert count == len(found)
    assert all(output.classifications[0].weight == 1.0 for output in response.outputs)


@given(inputs)
def test_the_sink_answers_a_single_image(item: models_pb2.ClassificationInput) -> None:
    output = models_pb2.ClassificationOutput.FromString(answer_single(item.SerializeToString()))
    assert output.correlation_id == item.correlation_id


@given(st.binary(max_size=60))
def test_the_sink_survives_any_bytes(data: bytes) -> None:
    try:
        answer_request(data)
    except MalformedRequest:
        return


def test_every_public_name_is_there_and_importing_the_package_loads_none() -> None:
    import athena_async.emulator as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.nonsense  # noqa: B018
    code = "import sys, athena_async.emulator; assert 'athena_async.emulator.server' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=18)
