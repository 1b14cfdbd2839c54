"""`run`: a program's main coroutine on the faster event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """`asyncio.run` on uvloop where it is installed, and on asyncio's own loop elsewhere.

    The loop policy is never touched: loops that the program makes otherwise are its own affair.
    As with `asyncio.run`, Ctrl-C cancels ``main``, and tasks that are left are cancelled at its end.

    Args:
        main: the coroutine to run.
        debug: asyncio's debug mode; None leaves it to PYTHONASYNCIODEBUG.

    Returns:
        What ``main`` returns.
    """
    with asyncio.Runner(debug=debug, loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
