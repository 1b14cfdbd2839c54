from __future__ import annotations

import os
from pathlib import Path

import pytest

from athena_async.errors import ConfigError
from athena_async.jobs import sources
from athena_async.jobs.sources import FileSource, file_source


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "deep/c.jpg", "deep/deeper/d.gif"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path


def names(source: FileSource, problems: list[str] | None = None) -> list[str]:
    def note(path: str, error: OSError) -> None:
        assert problems is not None, (path, error)
        problems.append(f"{os.path.basename(path)}: {error.strerror}")

    return sorted(os.path.basename(entry.path) for entry in source.entries(note))


def test_a_directory_gives_its_own_files_only(tree: Path) -> None:
    assert names(file_source([tree], recursive=False)) == ["a.jpg", "b.png"]


def test_recursive_descends_to_every_level(tree: Path) -> None:
    assert names(file_source([tree], recursive=True)) == ["a.jpg", "b.png", "c.jpg", "d.gif"]


def test_patterns_hold_for_directories_and_not_for_files_that_were_named(tree: Path) -> None:
    source = file_source([tree, tree / "b.png"], recursive=True, patterns=("*.jpg",))
    assert names(source) == ["a.jpg", "b.png", "c.jpg"]


@pytest.mark.parametrize("recursive", [True, False])
def test_overlapping_paths_give_each_file_once(tree: Path, recursive: bool) -> None:
    paths = [tree, tree / "a.jpg", tree, tree / "deep", tree / "deep" / "c.jpg", str(tree) + "/./a.jpg"]
    expected = ["a.jpg", "b.png", "c.jpg"] + (["d.gif"] if recursive else [])
    assert names(file_source(paths, recursive=recursive)) == expected


def test_entries_tell_size_and_time(tree: Path) -> None:
    os.utime(tree / "a.jpg", ns=(5, 7))
    (entry,) = file_source([tree / "a.jpg"], recursive=False).entries(lambda path, error: None)
    assert entry == (str(tree / "a.jpg"), 5, 7)


def test_relative_paths_become_absolute(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert file_source(["a.jpg"], recursive=False).roots == (str(tree / "a.jpg"),)


def test_a_path_that_does_not_exist_is_named(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.*existing file or directory"):
        file_source([tree / "nowhere"], recursive=False)


def test_links_to_files_are_followed_and_links_to_directories_are_not(tree: Path) -> None:
    (tree / "deep" / "loop").symlink_to(tree)
    (tree / "deep" / "linked.jpg").symlink_to(tree / "a.jpg")
    assert names(file_source([tree / "deep"], recursive=True)) == ["c.jpg", "d.gif", "linked.jpg"]


def test_a_link_to_a_directory_that_was_named_is_followed(tree: Path, tmp_path: Path) -> None:
    link = tree / "elsewhere"
    link.symlink_to(tree / "deep")
    assert names(file_source([link], recursive=False)) == ["c.jpg"]


def test_a_dangling_link_is_told(tree: Path) -> None:
    (tree / "gone.jpg").symlink_to(tree / "nothing")
    problems: list[str] = []
    assert names(file_source([tree], recursive=False), problems) == ["a.jpg", "b.png"]
    assert problems == ["gone.jpg: No such file or directory"]


def test_pipes_are_left_out(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    assert names(file_source([tree], recursive=False)) == ["a.jpg", "b.png"]


def test_a_directory_that_vanishes_is_told_and_the_rest_goes_on(tree: Path) -> None:
    problems: list[str] = []
    source = FileSource((str(tree / "vanished"), str(tree)), recursive=False)
    assert names(source, problems) == ["a.jpg", "b.png"]
    assert problems == ["vanished: No such file or directory"]


@pytest.mark.anyio
async def test_chunks_are_bounded_and_complete(tmp_path: Path) -> None:
    for number in range(sources.CHUNK_FILES + 10):
        (tmp_path / f"{number}").touch()
    chunks = [chunk async for chunk in file_source([tmp_path], recursive=False).chunks(lambda path, error: None)]
    assert [len(chunk) for chunk in chunks] == [sources.CHUNK_FILES, 10]
    assert len({entry.path for chunk in chunks for entry in chunk}) == sources.CHUNK_FILES + 10


@pytest.mark.anyio
async def test_count_tells_the_total(tree: Path) -> None:
    seen: list[int] = []
    assert await file_source([tree], recursive=True).count(seen.append) == 4
    assert seen == [4]


def test_an_abandoned_walk_closes_its_directories(tree: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    walk = file_source([tree], recursive=True).paths(lambda path, error: None)
    next(walk)
    walk.close()
    assert set(os.listdir("/proc/self/fd")) <= before
