"""Which kernel is chosen, and how one learns of it."""

import sys

import pytest
from cuda_on_host import HostDevice

from bluesky_jit.tomo import kernels
from bluesky_jit.tomo.jobs import ReferenceKernel
from bluesky_jit.tomo.kernels import choose, cuda
from bluesky_jit.tomo.kernels.astra import AstraKernel
from bluesky_jit.tomo.kernels.cuda import CudaKernel
from bluesky_jit.tomo.kernels.numba import NumbaKernel


@pytest.fixture
def messages(caplog):
    kernels._say.cache_clear()
    caplog.set_level("INFO", logger="bluesky_jit.tomo.kernels")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU, which the host stands in for."""
    monkeypatch.setattr(cuda, "why_not", lambda: "")
    monkeypatch.setattr(cuda, "CupyDevice", HostDevice)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda: "no NVIDIA driver on this machine")


def test_without_a_gpu_the_cpu_is_chosen_and_the_log_says_why(no_gpu, messages):
    assert isinstance(choose("auto"), NumbaKernel)
    assert messages() == [
        "backprojection kernel: numba on the CPU (chosen automatically; not cuda: no NVIDIA driver on this machine)"
    ]


def test_the_log_says_it_once_a_process(no_gpu, messages):
    for _ in range(3):
        choose("auto")
    choose("reference")
    assert [text.partition(" (")[0] for text in messages()] == [
        "backprojection kernel: numba on the CPU",
        "backprojection kernel: NumPy reference",
    ]


def test_a_gpu_is_chosen_where_there_is_one(gpu, messages):
    assert isinstance(choose("auto"), CudaKernel)
    assert messages() == ["backprojection kernel: CUDA on host (chosen automatically)"]


@pytest.mark.parametrize(
    ("name", "kind"), [("cuda", CudaKernel), ("numba", NumbaKernel), ("reference", ReferenceKernel)]
)
def test_a_kernel_that_is_named_is_taken(gpu, name, kind):
    assert isinstance(choose(name), kind)


def test_a_gpu_that_is_asked_for_and_missing_is_an_error_with_a_remedy(no_gpu):
    with pytest.raises(ValueError, match="'cuda' and cannot run here: no NVIDIA driver on this machine; or let kernel"):
        choose("cuda")


def test_astra_is_for_a_gpu():
    pytest.importorskip("astra")
    if AstraKernel().on_gpu:
        assert isinstance(choose("astra"), AstraKernel)
    else:
        with pytest.raises(ValueError, match="on the CPU it has horizontal parallel-beam slices only"):
            choose("astra")


def test_astra_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "astra", None)
    with pytest.raises(ValueError, match=r"pip install 'bluesky-jit\[astra\]'"):
        choose("astra")


def test_a_wrong_name_is_refused():
    with pytest.raises(ValueError, match="kernel is 'abacus': give one of auto, cuda, numba, astra, reference"):
        choose("abacus")
