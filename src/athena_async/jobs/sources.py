"""Which files a job looks at: found lazily, told in chunks, never held all at once.

Format is told by content and not by name, so every regular file of a directory is taken unless
a pattern says otherwise. Symbolic links to files are followed, those to directories are not.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from typing import NamedTuple

import anyio.to_thread

from athena_async.errors import ConfigError

CHUNK_FILES = 256
_COUNT_CHUNK_FILES = 8192


class FileEntry(NamedTuple):
    """One file as it was found. ``path`` is absolute; bytes that are no text stand in it as surrogates."""

    path: str
    size_bytes: int
    mtime_ns: int


UnreadablePath = Callable[[str, OSError], None]
"""Told of each path that could not be looked at, with the reason."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """The files under some paths.

    Invariants: iterating it holds one open directory per level of depth, and nothing else; each
    file is found once even where the paths overlap (links aside).

    Args:
        roots: absolute paths of files and directories; see `file_source`.
        recursive: descend into directories within directories.
        patterns: shell patterns for the names of files found in directories; empty takes all.
            A file that is itself a root is always taken.
    """

    roots: tuple[str, ...]
    recursive: bool = False
    patterns: tuple[str, ...] = ()

    def paths(self, on_unreadable: UnreadablePath) -> Generator[str, None, None]:
        """Walks in the order of the file system; blocks on it, so belongs into a thread."""
        for root in self.roots:
            if os.path.isdir(root):  # also through a link: it was named on purpose
                yield from self._directory(root, on_unreadable)
            else:
                yield root

    def _directory(self, root: str, on_unreadable: UnreadablePath) -> Generator[str, None, None]:
        open_directories = [_scan(root, on_unreadable)]
        try:
            while open_directories:
                entry = next(open_directories[-1], None)
                if entry is None:
                    open_directories.pop()
                elif _is_directory(entry):
                    if self.recursive:
                        open_directories.append(_scan(entry.path, on_unreadable))
                elif self.matches(entry.name):
                    yield entry.path
        finally:
            for scan in open_directories:
                scan.close()

    def matches(self, name: str) -> bool:
        return not self.patterns or any(fnmatch.fnmatch(name, pattern) for pattern in self.patterns)

    def entries(self, on_unreadable: UnreadablePath) -> Generator[FileEntry, None, None]:
        """The same walk with size and time of each regular file; sockets, pipes and devices are left out."""
        for path in self.paths(on_unreadable):
            try:
                found = os.stat(path)
            except OSError as error:
                on_unreadable(path, error)
                continue
            if stat.S_ISREG(found.st_mode):
                yield FileEntry(path, found.st_size, found.st_mtime_ns)

    async def chunks(self, on_unreadable: UnreadablePath) -> AsyncGenerator[list[FileEntry], None]:
        """Chunks of at most `CHUNK_FILES` entries, each found in a worker thread.

        Cancellation waits for the chunk being looked up, and closes the open directories.
        """
        walk = self.entries(on_unreadable)
        try:
            while chunk := await anyio.to_thread.run_sync(_take, walk, CHUNK_FILES):
                yield chunk
        finally:
            walk.close()

    async def count(self, on_count: Callable[[int], None]) -> int:
        """Counts the files ahead of the walk, for a time left; reads names only.

        Args:
            on_count: told the number so far now and then.
        """
        walk = self.paths(lambda path, error: None)
        total = 0
        try:
            while seen := await anyio.to_thread.run_sync(_skip, walk, _COUNT_CHUNK_FILES):
                total += seen
                on_count(total)
        finally:
            walk.close()
        return total


def file_source(
    paths: Iterable[str | os.PathLike[str]], *, recursive: bool, patterns: Sequence[str] = ()
) -> FileSource:
    """Makes paths absolute and drops those that another one already covers.

    Raises:
        ConfigError: a path does not exist.
    """
    roots = list(dict.fromkeys(os.path.abspath(path) for path in paths))
    for root in roots:
        if not os.path.lexists(root):
            raise ConfigError("PATH", root, "an existing file or directory")
    source = FileSource(tuple(roots), recursive, tuple(patterns))
    directories = {root for root in roots if os.path.isdir(root)}
    kept = tuple(root for root in roots if not _is_covered(root, directories, source))
    return FileSource(kept, recursive, tuple(patterns))


def _is_covered(root: str, directories: set[str], source: FileSource) -> bool:
    """Whether walking one of ``directories`` finds ``root`` too."""
    if root in directories:
        return source.recursive and not os.path.islink(root) and not directories.isdisjoint(_parents(root))
    if not source.matches(os.path.basename(root)):
        return False
    parents = _parents(root) if source.recursive else _parents(root)[:1]
    return not directories.isdisjoint(parents)


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePath(path).parents]


def _scan(path: str, on_unreadable: UnreadablePath) -> Generator[os.DirEntry[str], None, None]:
    """The entries of one directory, which is closed at the end, at an error or with the generator."""
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        on_unreadable(path, error)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # taken for a file, whose own look-up then tells what is wrong


def _take(walk: Iterator[FileEntry], count: int) -> list[FileEntry]:
    return list(islice(walk, count))


def _skip(walk: Iterator[str], count: int) -> int:
    return sum(1 for _ in islice(walk, count))
