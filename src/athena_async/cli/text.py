"""Numbers and names as people read them."""

from __future__ import annotations

import math
import os


def printable(text: str) -> str:
    """The text in one line that cannot move a terminal's cursor: control characters are shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def short_path(path: str) -> str:
    """An absolute path as seen from the working directory, where it lies below; printable."""
    here = os.path.join(os.getcwd(), "")
    return printable(path.removeprefix(here))


def size(count_bytes: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count_bytes) < 999.5:
            return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.3g} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:,.1f} TB"


def duration(seconds: float) -> str:
    """A time that has passed or is left."""
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def latency(seconds: float) -> str:
    """A time that an answer took."""
    if math.isnan(seconds):
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def rate(per_second: float) -> str:
    """Images per second."""
    return f"{per_second:,.0f} /s" if per_second >= 99.5 else f"{per_second:.3g} /s"
