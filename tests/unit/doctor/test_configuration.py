"""Settings are judged one by one: each that does not fit is a line, and the rest holds."""

from pathlib import Path

from bluesky_jit.doctor import configuration
from bluesky_jit.settings import Settings, load_settings


def test_a_file_that_fits_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[learn]\nseed = 3\n")
    settings, [found] = configuration.read(file, {}, {})
    assert (found.verdict, found.text) == ("fine", f"from {file}")
    assert settings.learn.seed == 3


def test_everything_that_does_not_fit_is_told_and_the_rest_holds(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[learn]\nseed = 3\nsplits = 1\nsed = 4\n[lern]\na = 1\n[tomo]\nfilter = "ramp"\nturns = 2\n')
    environment = {"BLUESKY_JIT_EPICS__CA_PORT": "70000", "BLUESKY_JIT_EPICS__PREFIX": "X:"}
    settings, found = configuration.read(file, environment, {"slices": {"updates_per_s": "0", "size": "64"}})
    assert all(each.verdict == "problem" for each in found)
    words = [
        "learn.splits is 1",
        "no setting learn.sed",
        "no section 'lern'",
        "tomo.filter is 'ramp'",
        "70000",
        "above 0",
    ]
    for word in words:
        assert sum(word in each.text for each in found) == 1, word
    assert len(found) == len(words)
    assert (settings.learn.seed, settings.tomo.turns, settings.epics.prefix, settings.slices.size) == (3, 2, "X:", 64)
    assert settings.learn.splits == Settings().learn.splits


def test_settings_that_do_not_fit_each_other_are_told() -> None:
    _, [found] = configuration.read(None, {}, {"learn": {"region": "box"}})
    assert "learn.region_mm is () and learn.region box" in found.text


def test_settings_that_fit_only_together_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[learn]\nregion = "cylinder"\nregion_mm = [1.0, -1.0, 1.0]\n')
    assert [each.verdict for each in configuration.read(file, {}, {})[1]] == ["fine"]


def test_a_file_that_is_not_there_or_is_not_toml_is_told(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.toml", "does not exist"), (tmp_path, "is a folder")):
        _, [found] = configuration.read(path, {}, {})
        assert (found.verdict, words in found.text) == ("problem", True)
    (tmp_path / "bad.toml").write_text("[learn\n")
    _, [found] = configuration.read(None, {"BLUESKY_JIT_SETTINGS": str(tmp_path / "bad.toml")}, {})
    assert "is not valid TOML" in found.text


def test_without_a_file_one_is_asked_for() -> None:
    _, [found] = configuration.read(None, {}, {})
    assert (found.verdict, "set BLUESKY_JIT_SETTINGS" in found.text) == ("warning", True)


def geometry(**values: object) -> tuple[str, str]:
    [found] = configuration.geometry(load_settings(environment={}, geometry=values))
    return found.verdict, found.text


def test_a_geometry_that_is_missing_must_come_with_each_run() -> None:
    verdict, text = geometry(pixel_mm=0.1)
    assert verdict == "warning"
    assert text.startswith("geometry.source_axis_mm, geometry.source_detector_mm not set")
    assert geometry(kind="parallel")[1].startswith("geometry.pixel_mm not set")


def test_a_geometry_that_is_there_is_told() -> None:
    assert geometry(kind="parallel", pixel_mm=0.1) == (
        "fine",
        "parallel beam, pixels of 0.1 mm; a run's own comes first",
    )
    verdict, text = geometry(pixel_mm=0.1, source_axis_mm=441.0, source_detector_mm=1069.0)
    assert (verdict, "441 mm to the axis and 1069 mm" in text) == ("fine", True)


def test_a_detector_before_the_axis_is_a_problem() -> None:
    verdict, text = geometry(pixel_mm=0.1, source_axis_mm=1069.0, source_detector_mm=441.0)
    assert (verdict, "must lie beyond the axis" in text) == ("problem", True)
