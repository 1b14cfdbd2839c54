"""The generated code: fresh, true to the contract, and on a descriptor pool of its own."""

from __future__ import annotations

import filecmp
import pickle
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FieldDescriptor

from athena_async._proto._pool import POOL
from athena_async._proto.athena import athena_pb2, models_pb2

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "src/athena_async/_proto/athena"
PROTO_PYTHON = ROOT / ".venv-proto/bin/python"

# The service's published definition: field number, name and type, in file order.
MESSAGES = {
    "ListDeploymentsResponse": ["1 deployments: repeated Deployment"],
    "Deployment": ["1 deployment_id: string", "2 backlog: int32"],
    "ClassifyRequest": ["1 deployment_id: string", "2 inputs: repeated ClassificationInput"],
    "ClassificationInput": [
        "1 affiliate: string",
        "2 correlation_id: string",
        "3 encoding: RequestEncoding",
        "4 data: bytes",
        "5 format: ImageFormat",
        "6 hashes: repeated ImageHash",
    ],
    "ClassifyResponse": ["1 global_error: ClassificationError", "2 outputs: repeated ClassificationOutput"],
    "ClassificationOutput": [
        "1 correlation_id: string",
        "2 classifications: repeated Classification",
        "3 error: ClassificationError",
    ],
    "Classification": ["1 label: string", "2 weight: float"],
    "ClassificationError": ["1 code: ErrorCode", "2 message: string", "3 details: string"],
    "ImageHash": ["1 value: string", "2 type: HashType"],
}

IMAGE_FORMATS = "UNSPECIFIED GIF JPEG BMP DIB PNG WEBP PBM PGM PPM PXM PNM PFM SR RAS TIFF HDR PIC"
ENUMS = {
    "ErrorCode": {
        "ERROR_CODE_UNSPECIFIED": 0,
        "ERROR_CODE_IMAGE_TOO_LARGE": 2,
        "ERROR_CODE_MODEL_ERROR": 3,
        "ERROR_CODE_AFFILIATE_NOT_PERMITTED": 4,
        "ERROR_CODE_DEPLOYMENT_ID_INVALID": 5,
        "ERROR_CODE_CORRELATION_ID_INVALID": 6,
    },
    "RequestEncoding": {
        "REQUEST_ENCODING_UNSPECIFIED": 0,
        "REQUEST_ENCODING_UNCOMPRESSED": 1,
        "REQUEST_ENCODING_BROTLI": 2,
    },
    "ImageFormat": {
        **{f"IMAGE_FORMAT_{name}": number for number, name in enumerate(IMAGE_FORMATS.split())},
        "IMAGE_FORMAT_RAW_UINT8_BGR": 19,
    },
    "HashType": {"HASH_TYPE_UNKNOWN": 0, "HASH_TYPE_MD5": 1, "HASH_TYPE_SHA1": 2},
}

METHODS = {
    "Classify": ("stream athena.ClassifyRequest", "stream athena.ClassifyResponse"),
    "ListDeployments": ("google.protobuf.Empty", "athena.ListDeploymentsResponse"),
    "ClassifySingle": ("athena.ClassificationInput", "athena.ClassificationOutput"),
}

OPTIONS = {
    "csharp_namespace": "Resolver.Athena.Grpc",
    "java_package": "com.resolver.athena.grpc",
    "objc_class_prefix": "RAT",
    "php_namespace": "Resolver\\Athena\\Grpc",
    "ruby_package": "Resolver::Athena::Grpc",
    "swift_prefix": "RAT",
}


def parsed(module: object) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)  # type: ignore[attr-defined]
    return file


def spelled(field: FieldDescriptor) -> str:
    """A field as the contract's tables write it."""
    repeated = "repeated " if field.is_repeated else ""
    if field.message_type is not None:
        kind = field.message_type.name
    elif field.enum_type is not None:
        kind = field.enum_type.name
    else:
        kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{field.number} {field.name}: {repeated}{kind}"


@pytest.mark.timeout(60)
def test_generated_code_is_what_the_generator_writes_today(tmp_path: Path) -> None:
    if not PROTO_PYTHON.exists():
        pytest.fail("the environment of the generator is missing: run `make setup`")
    subprocess.run([PROTO_PYTHON, ROOT / "scripts/generate_proto.py", tmp_path], check=True, timeout=50)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in GENERATED.iterdir() if path.is_file())
    _, changed, unreadable = filecmp.cmpfiles(tmp_path, GENERATED, names, shallow=False)
    assert (changed, unreadable) == ([], []), "run `make proto`"


def test_messages_are_the_contract_in_file_order() -> None:
    described = {
        message.name: [spelled(field) for field in message.fields]
        for message in (models_pb2.DESCRIPTOR.message_types_by_name[m.name] for m in parsed(models_pb2).message_type)
    }
    assert list(described.items()) == list(MESSAGES.items())
    assert parsed(athena_pb2).message_type == []


def test_enums_are_the_contract_in_file_order() -> None:
    described = [
        (enum.name, {value.name: value.number for value in enum.value}) for enum in parsed(models_pb2).enum_type
    ]
    assert described == list(ENUMS.items())
    assert [list(values) for _, values in described] == [list(values) for values in ENUMS.values()]


def test_number_18_of_the_formats_stays_reserved() -> None:
    formats = next(enum for enum in parsed(models_pb2).enum_type if enum.name == "ImageFormat")
    # Ranges of an enum include their end.
    assert [(span.start, span.end) for span in formats.reserved_range] == [(18, 18)]


def test_service_is_the_contract() -> None:
    (service,) = parsed(athena_pb2).service
    described = {
        method.name: (
            "stream " * method.client_streaming + method.input_type.removeprefix("."),
            "stream " * method.server_streaming + method.output_type.removeprefix("."),
        )
        for method in service.method
    }
    assert service.name == "ClassifierService"
    assert list(described.items()) == list(METHODS.items())


@pytest.mark.parametrize(
    ("module", "name", "outer", "dependencies"),
    [
        (models_pb2, "athena/models.proto", "AthenaModelsProto", []),
        (
            athena_pb2,
            "athena/athena.proto",
            "AthenaServiceProto",
            ["google/protobuf/empty.proto", "athena/models.proto"],
        ),
    ],
)
def test_file_names_package_and_options_are_the_contract(
    module: object, name: str, outer: str, dependencies: list[str]
) -> None:
    file = parsed(module)
    assert (file.name, file.package, file.syntax) == (name, "athena", "proto3")
    assert list(file.dependency) == dependencies
    set_options = {field.name: value for field, value in file.options.ListFields()}
    assert set_options == {**OPTIONS, "java_outer_classname": outer}


def test_messages_live_outside_the_default_pool() -> None:
    assert models_pb2.DESCRIPTOR.pool is POOL
    assert POOL is not descriptor_pool.Default()


def test_messages_pickle() -> None:
    message = models_pb2.ClassifyRequest(
        deployment_id="night", inputs=[models_pb2.ClassificationInput(correlation_id="a", data=b"\x00\x01")]
    )
    assert pickle.loads(pickle.dumps(message)) == message
