"""The state table: every state driven with every input."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import athena_async
from athena_async.streams import session
from athena_async.streams.state import TABLE, IllegalTransition, Input, State, after

ANY_STATE = st.sampled_from(State)
ANY_INPUT = st.sampled_from(Input)


@given(ANY_STATE, ANY_INPUT)
def test_every_pair_has_its_row_or_is_refused_by_name(state: State, given_input: Input) -> None:
    if (state, given_input) in TABLE:
        assert after(state, given_input) is TABLE[state, given_input]
    else:
        with pytest.raises(IllegalTransition, match=f"{given_input} in state {state}"):
            after(state, given_input)


@given(st.lists(ANY_INPUT))
def test_closed_is_for_good_and_nothing_opens_without_connecting(inputs: list[Input]) -> None:
    state, path = State.IDLE, [State.IDLE]
    for given_input in inputs:
        try:
            state = after(state, given_input)
        except IllegalTransition:
            continue
        path.append(state)
    if State.CLOSED in path:
        assert set(path[path.index(State.CLOSED) :]) == {State.CLOSED}
    for before, now in zip(path, path[1:], strict=False):
        assert now is not State.OPEN or before in (State.CONNECTING, State.OPEN)
        assert now is not State.DRAINING or before in (State.OPEN, State.DRAINING)
        assert now is not State.BACKOFF or before in (State.CONNECTING, State.OPEN, State.BACKOFF)


@given(ANY_STATE)
def test_what_comes_from_outside_is_taken_in_every_state(state: State) -> None:
    """Demand, drain and close are asked for by others, who do not know the state."""
    for outside in (Input.DEMAND, Input.DRAIN, Input.CLOSE):
        after(state, outside)
    assert after(state, Input.CLOSE) is State.CLOSED


@given(ANY_STATE)
def test_every_state_can_be_reached_and_left(state: State) -> None:
    reached, edge = {State.IDLE}, [State.IDLE]
    while edge:
        here = edge.pop()
        for (before, _), following in TABLE.items():
            if before is here and following not in reached:
                reached.add(following)
                edge.append(following)
    assert state in reached
    assert state is State.CLOSED or any(before is state and now is not state for (before, _), now in TABLE.items())


@pytest.mark.parametrize("failing", [State.CONNECTING, State.OPEN])
def test_every_failure_is_backed_off_from(failing: State) -> None:
    assert after(failing, Input.LOST) is State.BACKOFF
    assert after(State.BACKOFF, Input.DEMAND) is State.BACKOFF


def _assignments(tree: ast.AST) -> list[tuple[str, int]]:
    """Where an attribute named ``state`` is set: the function around it and the line."""
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Attribute) and target.attr == "state" for target in targets):
                found.append((function.name, node.lineno))
    return found


def test_nothing_but_the_table_sets_the_state() -> None:
    names = [name for name, _ in _assignments(ast.parse(inspect.getsource(session)))]
    assert names == ["__init__", "_enter"]
    source = inspect.getsource(session.Session._enter)
    assert "self.state = after(self.state, given)" in source
    package = Path(athena_async.__file__).parent
    for part in ("streams", "channels", "batching"):
        for path in (package / part).glob("*.py"):
            if path.name not in ("session.py", "health.py"):
                assert _assignments(ast.parse(path.read_text())) == [], path
