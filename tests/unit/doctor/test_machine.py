"""Cores, versions, and the process that asks torch, numba and the GPU."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from small_disk import largest_file

from bluesky_jit.doctor.machine import hardware, package_fault, packages, threads
from bluesky_jit.settings import load_settings

DEFAULTS = load_settings(environment={})


def test_two_cores_and_one_thread_for_each_library_are_fine() -> None:
    assert [each.verdict for each in threads(DEFAULTS, {"OMP_NUM_THREADS": "1"}, 2)] == ["fine", "fine"]


def test_one_core_or_more_workers_than_cores_are_told() -> None:
    cores, _ = threads(DEFAULTS, {}, 1)
    assert (cores.verdict, "training and slices share one" in cores.text) == ("warning", True)
    cores, _ = threads(load_settings(environment={}, tomo={"workers": 8}), {}, 4)
    assert (cores.verdict, "set it to 4 or less" in cores.text) == ("warning", True)


@pytest.mark.parametrize(
    ("environment", "words"), [({}, "OMP_NUM_THREADS is not set"), ({"OMP_NUM_THREADS": "16"}, "OMP_NUM_THREADS is 16")]
)
def test_maths_libraries_with_threads_of_their_own_are_told(environment: dict[str, str], words: str) -> None:
    _, found = threads(DEFAULTS, environment, 4)
    assert (found.verdict, words in found.text) == ("warning", True)
    assert "`export OMP_NUM_THREADS=1`" in found.text


def test_what_is_installed_here_is_supported() -> None:
    [found] = packages()
    assert (found.verdict, f"numpy {version('numpy')}" in found.text) == ("fine", True), found.text


def test_packages_that_are_missing_or_too_old_are_told() -> None:
    assert package_fault(Requirement("nosuch-package>=1")) == "nosuch-package is missing"
    assert package_fault(Requirement("numpy>=99")) == f"numpy is {version('numpy')}, and >=99 is supported"
    assert package_fault(Requirement("numpy>=2")) == ""
    # Extras, and what is for other systems, need not be there.
    assert package_fault(Requirement('nosuch-package>=1; extra == "cuda12"')) == ""
    assert package_fault(Requirement('nosuch-package>=1; sys_platform == "nosuch"')) == ""


def test_the_libraries_that_compute_are_asked_in_a_process_of_their_own() -> None:
    found = {each.subject: each for each in hardware(DEFAULTS, timeout_s=100.0)}
    assert found.keys() == {"GPU", "torch", "numba"}
    assert {found[name].verdict for name in ("torch", "numba")} == {"fine"}
    assert found["torch"].text.startswith(version("torch"))


def test_a_library_that_cannot_be_loaded_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [found] = hardware(load_settings(environment={}, tomo={"kernel": "reference"}), timeout_s=100.0)
    assert (found.verdict, "libtorch.so: cannot open shared object file" in found.text) == ("problem", True)


def test_a_driver_that_hangs_is_a_line() -> None:
    [found] = hardware(DEFAULTS, timeout_s=0.01)
    assert (found.verdict, "did not answer within 0.01 s" in found.text) == ("problem", True)


def test_a_kernel_that_was_asked_for_and_cannot_run_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from bluesky_jit.doctor.hardware import gpu

    reasons = "bluesky_jit.tomo.kernels.cuda.why_not"
    monkeypatch.setattr(reasons, lambda: "no NVIDIA driver on this machine")
    assert gpu("auto").verdict == "fine"
    assert (gpu("cuda").verdict, "set tomo.kernel to auto" in gpu("cuda").text) == ("problem", True)
    monkeypatch.setattr(reasons, lambda: "CuPy cannot be loaded: pip install 'bluesky-jit[cuda12]'")
    assert (gpu("auto").verdict, "pip install" in gpu("auto").text) == ("warning", True)
    monkeypatch.setattr(reasons, lambda: "")
    assert gpu("cuda").verdict == "fine"


def test_compiled_loops_that_cannot_be_kept_are_a_problem() -> None:
    from bluesky_jit.doctor.hardware import loops

    [kept] = loops()
    assert (kept.verdict, "compiled loops are kept in" in kept.text) == ("fine", True)
    with largest_file(100):
        [found] = loops()
    assert (found.verdict, "set NUMBA_CACHE_DIR to a folder that can" in found.text) == ("problem", True)
