"""The training step on a GPU: recorded once as a CUDA graph, then replayed.

A step of these small networks is a hundred kernels of microseconds each; launching them one by one takes longer than
they do.
"""

from __future__ import annotations

from typing import Protocol

import torch

from bluesky_jit.learn.step import Step

WARM_UP_ROUNDS = 3
"""Steps, all of them refused, before recording: PyTorch asks for some so that libraries have made their choices."""


class Replayed(Protocol):
    """Do again what was recorded."""

    def replay(self) -> None: ...


class CudaStep(Step):
    """Take steps by replaying a graph, which is recorded anew when the pairs change their shape."""

    _graph: Replayed | None = None

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        # What was recorded works on the tensors that were there before.
        self._graph = None

    def _place(self, u: torch.Tensor, v: torch.Tensor) -> None:
        if self._u.shape != u.shape:
            self._u, self._v = torch.empty_like(u, device=self._device), torch.empty_like(v, device=self._device)
            self._graph = None
        self._u.copy_(u)
        self._v.copy_(v)

    def _run(self) -> None:
        if self._graph is None:
            self._graph = self._recorded()
        self._graph.replay()

    def _recorded(self) -> Replayed:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._warm_up()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Reconstruction goes on in other threads meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._compute()
        return graph

    def _warm_up(self) -> None:
        """Compute a few steps and withhold them: nothing may change but what libraries know of the work."""
        withheld = self._numbers[4]
        withheld.fill_(1.0)
        for _ in range(WARM_UP_ROUNDS):
            self._compute()
        withheld.fill_(0.0)
