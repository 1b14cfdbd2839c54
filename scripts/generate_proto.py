"""Generates src/athena_async/_proto/athena from proto/athena, on the private descriptor pool.

Run by ``make proto`` in an environment that holds requirements/proto.txt: grpcio-tools needs an
older protobuf than the project itself, so it never shares the project's environment.

    python scripts/generate_proto.py            # writes the files
    python scripts/generate_proto.py OUT_DIR    # writes them elsewhere (to compare)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "athena_async._proto.athena"
KEPT = tuple(f"{name}.{ending}" for name in ("models_pb2", "athena_pb2", "athena_pb2_grpc") for ending in ("py", "pyi"))

# Each rewrite must apply wherever its needle stands; the needles are what protoc 6.31 writes.
REWRITES = (
    ("from athena import ", "from . import "),
    ("_descriptor_pool.Default()", "_POOL"),
    (
        "from google.protobuf import descriptor_pool as _descriptor_pool\n",
        "from .._pool import POOL as _POOL\n",
    ),
    # The module names of the messages, so that instances pickle.
    ("(DESCRIPTOR, 'athena.", f"(DESCRIPTOR, '{PACKAGE}."),
)


def compile_protos(out: Path) -> None:
    import grpc_tools
    from grpc_tools import protoc

    tools = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"-I{ROOT / 'proto'}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--plugin=protoc-gen-mypy={tools / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={tools / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        "athena/models.proto",
        "athena/athena.proto",
    ]
    if protoc.main(arguments):
        raise SystemExit("protoc failed")


def generate(target: Path) -> None:
    """Writes the generated modules into ``target``, replacing what was there."""
    with tempfile.TemporaryDirectory() as scratch:
        compile_protos(Path(scratch))
        target.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            text = (Path(scratch) / "athena" / name).read_text()
            for old, new in REWRITES:
                text = text.replace(old, new)
            (target / name).write_text(text)
    source_init = ROOT / "src/athena_async/_proto/athena/__init__.py"
    if target != source_init.parent:
        shutil.copy(source_init, target / "__init__.py")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "src/athena_async/_proto/athena")
