"""What an import costs: the callback and devices load in a console that never sees torch."""

import pickle
import subprocess
import sys

import pytest

from bluesky_jit.messages import Control, Problem, RunStop, SessionStatus

HEAVY = ("torch", "numba", "cupy", "astra", "tiled")


@pytest.mark.parametrize("statement", ["import bluesky_jit", "from bluesky_jit import JITCallback"])
def test_importing_the_face_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_every_public_name_can_be_imported() -> None:
    import bluesky_jit

    for name in bluesky_jit.__all__:
        assert getattr(bluesky_jit, name).__name__ == name


def test_an_unknown_name_says_so() -> None:
    import bluesky_jit

    with pytest.raises(AttributeError, match="no attribute 'Sessions'"):
        _ = bluesky_jit.Sessions


def test_messages_pickle() -> None:
    for message in (
        Control(name="XY:Position", value=1.5),
        Problem(text="no flats"),
        RunStop(run_uid="u", time_s=1.0, exit_status="success"),
        SessionStatus(time_s=2.0),
    ):
        assert repr(pickle.loads(pickle.dumps(message))) == repr(message)  # noqa: S301 - our own
