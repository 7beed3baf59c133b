"""NVIDIA's run-time compiler takes the kernel's source for every architecture that is still in use; no GPU needed."""

import ctypes
import re
from importlib import metadata

import pytest

from bluesky_jit.tomo.kernels.cuda_device import source

ARCHITECTURES = {75: "Turing", 80: "A100", 86: "RTX 30", 89: "RTX 40", 90: "H100, H200", 100: "B200", 120: "RTX 50"}
MOST_REGISTERS = 64
"""65,536 registers of a multiprocessor let 1024 threads be there at once with these, enough to hide a load's wait."""


@pytest.fixture(scope="module")
def nvrtc():
    try:
        found = metadata.files("nvidia-cuda-nvrtc") or []
    except metadata.PackageNotFoundError:
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    library = next(path for path in found if re.match(r"(lib)?nvrtc(\d|\.so)", path.name))
    return ctypes.CDLL(str(library.locate()))


def compiled(nvrtc, architecture):
    """Return the compiler's log and the size of the program in bytes."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"-arch=sm_{architecture}".encode(), b"--ptxas-options=-v"]
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source().encode(), b"backproject.cu", 0, None, None) == 0
    code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    text = log.value.decode()
    assert code == 0, text
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return text, size.value


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=ARCHITECTURES.values())
def test_the_source_compiles_without_warnings_and_stays_in_registers(nvrtc, architecture):
    log, size = compiled(nvrtc, architecture)
    assert size > 0
    assert "warning" not in log
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    registers = re.search(r"Used (\d+) registers", log)
    assert registers is not None
    assert int(registers[1]) <= MOST_REGISTERS
