from __future__ import annotations

from athena_async.cli.findings import State
from athena_async.cli.installation import installation_findings, pillow_findings
from athena_async.images.build import describe

EVERY_CODEC = dict.fromkeys(("jpg", "zlib", "webp", "libtiff", "jpg_2000", "avif"), "1.0")


def states(version: str, installed: dict[str, str], codecs: dict[str, str | None]) -> dict[str, State]:
    build = describe(version, installed, next(iter(installed)), codecs)
    return {finding.name: finding.state for finding in pillow_findings(build)}


def test_a_sound_pillow() -> None:
    assert states("13.0.0", {"pillow": "13.0.0"}, EVERY_CODEC) == {"pillow": State.OK, "pillow codecs": State.OK}


def test_pillow_simd_has_its_known_hole_named() -> None:
    found = states("12.1.1.post0", {"pillow-simd": "12.1.1.post0"}, EVERY_CODEC)
    assert found["CVE-2026-112403"] is State.NOTE


def test_two_installations_in_one_folder_are_broken() -> None:
    found = states("13.0.0", {"pillow": "13.0.0", "pillow-simd": "12.1.1.post0"}, EVERY_CODEC)
    assert found["pillow twice"] is State.BROKEN


def test_a_missing_codec_is_worth_knowing() -> None:
    found = states("13.0.0", {"pillow": "13.0.0"}, EVERY_CODEC | {"webp": None})
    assert found["pillow codecs missing"] is State.NOTE


def test_this_installation_is_sound_and_each_fault_would_have_a_remedy() -> None:
    found = installation_findings()
    assert [finding.name for finding in found if finding.state is State.BROKEN] == []
    assert all(finding.remedy for finding in found if finding.state is not State.OK)
    assert {"pillow", "pillow codecs", "resizer"} <= {finding.name for finding in found}
