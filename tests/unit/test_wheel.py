"""The wheel that users install: what is in it, what it asks for, and that it needs no extra."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=18)
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def required_without_extras(wheel: zipfile.ZipFile) -> set[str]:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    fields = Parser().parsestr(wheel.read(name).decode())
    requirements = fields.get_all("Requires-Dist") or []
    return {re.split(r"[^\w-]", line)[0].lower() for line in requirements if "extra ==" not in line}


def test_wheel_carries_the_type_marker_the_licence_and_nothing_of_the_tests(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {"athena_async/py.typed", "athena_async/_proto/athena/models_pb2.pyi"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"athena_async"}


def test_metadata_asks_for_pillow_and_for_no_other_build_of_it(wheel: zipfile.ZipFile) -> None:
    required = required_without_extras(wheel)
    assert {name for name in required if "pillow" in name} == {"pillow"}
    assert required.isdisjoint({"numpy", "opencv-python-headless", "typer", "httpx2", "brotli"})


def test_runtime_pins_cover_what_the_metadata_asks_for(wheel: zipfile.ZipFile) -> None:
    assert required_without_extras(wheel) <= pinned_at_run_time()


def test_wheel_imports_beside_its_own_requirements_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """A site directory holds the unpacked wheel and what requirements/runtime.txt pins: no extra is in reach."""
    wheel.extractall(tmp_path)
    for name in pinned_at_run_time():
        link_distribution(name, tmp_path)
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import athena_async
assert athena_async.__file__.startswith({str(tmp_path)!r}), athena_async.__file__
for name in athena_async.__all__:
    getattr(athena_async, name)
try:
    import numpy
except ImportError:
    print("alone")
"""
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "alone\n"), run.stderr


def pinned_at_run_time() -> set[str]:
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE)
    return set(pins)


def link_distribution(name: str, site: Path) -> None:
    distribution = metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in {"..", "__pycache__"}}
    for top in tops:
        (site / top).symlink_to(Path(str(distribution.locate_file(top))))
