"""A small model's training step without its launches: forward and backward pass as one CUDA graph.

A step of profile demo launches some thousand kernels, each of which takes the CPU longer than the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from adatosk.config import TrainConfig

Losses = TypeVar("Losses")
Passes = Callable[[Tensor, Tensor, Tensor], Losses]

# Models with fewer parameters are faster to compute than to launch: profile demo's has 0.5 million, the paper's 90.
SMALL = 10_000_000
# The first steps initialise libraries and choose kernels, which a graph cannot hold.
WARM_UP = 3


class StepGraph:
    """Runs forward and backward pass of a step: the first few kernel by kernel, then as a recorded graph.

    The steps before the recording are training steps as well, so nothing has to be undone. If recording fails, the
    kernels are launched one by one as before, and ``report`` says why.
    """

    def __init__(
        self,
        report: Callable[[str], None] = print,
        record: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> None:
        """
        Args:
            report: called with a line that says whether there is a graph.
            record: turns work into what repeats it on the same memory; by default :func:`record_graph`.
        """
        self.report, self.record = report, record or record_graph
        self.replay: Callable[[], None] | None = None
        self._steps, self._failed = 0, False
        self._aside: torch.cuda.Stream | None = None
        self._inputs: tuple[Tensor, ...] = ()

    def __call__(self, passes: Passes[Losses], *inputs: Tensor) -> Losses:
        """What ``passes(*inputs)`` gives and leaves in the parameters' gradients.

        Args:
            passes: forward and backward pass; the same in every step, and without anything that waits for a GPU.
            inputs: of the same shapes in every step. A result is overwritten by the next step.
        """
        device = inputs[0].device
        inputs = tuple(value.to(device, non_blocking=True) for value in inputs)
        if self._failed or self._steps < WARM_UP:
            self._steps += 1
            return passes(*inputs) if self._failed else self._beside(passes, inputs)
        if self.replay is None:
            self._inputs = tuple(value.clone() for value in inputs)
            try:
                self.replay = self.record(lambda: self._run(passes))
            except RuntimeError as error:
                self._failed = True
                why = str(error).strip().splitlines() or [type(error).__name__]
                self.report(f"no CUDA graph, so each kernel of a step is launched: {why[0]}")
                return passes(*inputs)
            self.report("forward and backward pass are replayed as one CUDA graph")
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self.replay()
        return self._found

    def _run(self, passes: Passes) -> None:
        self._found = passes(*self._inputs)

    def _beside(self, passes: Passes[Losses], inputs: tuple[Tensor, ...]) -> Losses:
        """The passes on another stream than the default one, as those that precede a recording have to be."""
        if inputs[0].device.type != "cuda":
            return passes(*inputs)
        here = torch.cuda.current_stream()
        self._aside = self._aside or torch.cuda.Stream()  # one for all, since gradients are added on the first's
        self._aside.wait_stream(here)
        with torch.cuda.stream(self._aside):
            found = passes(*inputs)
        here.wait_stream(self._aside)
        return found


def record_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels that ``work`` launches on a GPU, without running them; the result launches all of them.

    Raises:
        RuntimeError: the work does something that a graph cannot hold, such as waiting for the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads, such as the one that pins a loader's memory, may do meanwhile what this one may not.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def step_graph(
    train: TrainConfig, model: nn.Module, processes: int = 1, report: Callable[[str], None] = print
) -> StepGraph | None:
    """The graph of a model's steps on its device, if ``train.cuda_graph`` asks for one there; ``None`` on a CPU."""
    parameters = list(model.parameters())
    if parameters[0].device.type != "cuda" or train.cuda_graph is False:
        return None
    small = sum(parameter.numel() for parameter in parameters) < SMALL
    return StepGraph(report) if train.cuda_graph or (small and processes == 1 and not train.compile) else None
