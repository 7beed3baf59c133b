"""The command line: settings one by one, and one line for what does not fit."""

from pathlib import Path
from typing import Any

import pytest

from bluesky_jit.cli import main
from bluesky_jit.cli.main import settings_of


def ended(*arguments: str) -> str:
    """Run the command line and return what it says when it refuses."""
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert isinstance(refusal.value.code, str)
    return refusal.value.code


def asked(settings: Path | None, *places: str) -> Any:
    """Return the settings of a command line with --settings and some --set."""
    from argparse import Namespace

    return settings_of(Namespace(settings=settings, set=list(places)))


def test_set_wins_over_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[learn]\nseed = 1\nbatch = 2\nbuffer = 3\n")
    monkeypatch.setenv("BLUESKY_JIT_LEARN__BATCH", "20")
    monkeypatch.setenv("BLUESKY_JIT_LEARN__BUFFER", "30")
    learn = asked(file, "learn.buffer=300", "learn.enabled=no", "epics.prefix=X:Y=Z:").learn
    assert (learn.seed, learn.batch, learn.buffer, learn.enabled) == (1, 20, 300, False)


def test_a_value_may_hold_any_sign() -> None:
    settings = asked(None, "epics.prefix=A=B.C:", "tiled.uri=http://127.0.0.1:8000/?a=b")
    assert (settings.epics.prefix, settings.tiled.uri) == ("A=B.C:", "http://127.0.0.1:8000/?a=b")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("learn", "write SECTION.KEY=VALUE"),
        ("learn.seed", "write SECTION.KEY=VALUE"),
        ("seed=1", "write SECTION.KEY=VALUE"),
        ("lern.seed=1", "no section 'lern'"),
        ("learn.sed=1", "no setting learn.sed"),
        ("learn.seed=many", "learn.seed is 'many'"),
        ("slices.updates_per_s=0", "give a number above 0"),
        # These are the names of load_settings' own parameters.
        ("file.name=x", "no section 'file'"),
        ("environment.name=x", "no section 'environment'"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line(place: str, words: str) -> None:
    said = ended("serve", "--set", place)
    assert said.startswith("bluesky-jit: ")
    assert words in said
    assert "\n" not in said


def test_a_settings_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    said = ended("serve", "--settings", str(tmp_path / "none.toml"))
    assert said == f"bluesky-jit: settings file {tmp_path / 'none.toml'} does not exist: " + (
        "check the path or BLUESKY_JIT_SETTINGS"
    )


def test_a_command_that_does_not_exist_names_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(["sevre"])
    assert refusal.value.code == 2
    assert "serve" in capsys.readouterr().err
