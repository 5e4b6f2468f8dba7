"""Notebooks executed by papermill, in kernels that start clean and may die."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

from .files import CHECKOUT, replacing

KERNEL_ANSWERS = 120  # seconds at most
# not that it uses TCP, nor that it is shut down; and no history
KERNEL_ARGUMENTS = ["--IPKernelApp.log_level=CRITICAL", "--HistoryManager.hist_file=:memory:"]


class KernelDied(RuntimeError):
    """The process that executes a notebook can't be started, or ended, twice; the message names the notebook."""


class Client(AsyncKernelClient):
    """A client that can be closed after an interrupt while its channels open.

    Without the thread that listens for heartbeats, which can't be ended while it begins; whether a kernel lives is
    asked of its manager.
    """

    def start_channels(
        self, shell: bool = True, iopub: bool = True, stdin: bool = True, hb: bool = False, control: bool = True
    ) -> None:
        try:
            super().start_channels(shell, iopub, stdin, hb, control)
        except KeyboardInterrupt as interrupt:
            # A socket that was half made has no owner but these frames, and its context would wait for it for ever.
            traceback.clear_frames(interrupt.__traceback__)
            raise


class Kernel(AsyncKernelManager):
    """A kernel that runs one notebook or several; nbclient sees only an asynchronous one die."""

    started = False
    open_client: Any = None

    def client(self, **options: Any) -> Any:
        self.open_client = super().client(**options)
        return self.open_client

    def close_client(self) -> None:
        """Close what nbclient leaves open of a kernel that is not its own."""
        if self.open_client is not None:
            self.open_client.stop_channels()
            self.open_client.context.destroy(linger=0)
            self.open_client = None


@contextlib.contextmanager
def kernels(number: int = 1) -> Iterator[list[Kernel]]:
    """Managers of kernels that are not started yet; none outlives the block.

    Each runs the interpreter that runs this, whatever kernelspec is installed as python3, and starts clean: without
    the reader's IPython settings, startup files and history.
    """
    specs = KernelSpecManager(kernel_dirs=[])  # leaves ipykernel's own
    managers = [Kernel(kernel_name="python3", kernel_spec_manager=specs, client_factory=Client) for _ in range(number)]
    with tempfile.TemporaryDirectory(prefix="epkit-", ignore_cleanup_errors=True) as folder:
        for manager in managers:
            assert manager.kernel_spec
            manager.kernel_spec.env = {"IPYTHONDIR": folder, "PYTHONSTARTUP": "", "EPKIT_TERMINAL": "1"}
        try:
            yield managers
        finally:
            for manager in managers:
                if manager.has_kernel:
                    run_sync(manager.shutdown_kernel)(now=True)


def execute(
    source: Path,
    target: Path,
    parameters: dict,
    inputs: Callable[[], str] | None = None,
    kernel: Kernel | None = None,
) -> None:
    """Run a notebook by papermill, in a new kernel or in `kernel`; `target` is replaced when it has run to its end.

    What `inputs` returns at that end is noted in it. A failed run leaves `<target>.failed.ipynb` to look into, and
    raises PapermillExecutionError. A kernel that dies is replaced once, for what it finished is in the store; then
    KernelDied. StoreError if `target` can't be written.
    """
    # A manager starts one kernel, and no other when that has died.
    if kernel is None or (kernel.started and not run_sync(kernel.is_alive)()):
        with kernels() as (own,):
            return execute(source, target, parameters, inputs, own)
    with replacing(target) as temporary:
        notebook_path = temporary.with_suffix(".ipynb")
        try:
            notebook = _executed(source, notebook_path, parameters, kernel)
        except papermill.PapermillExecutionError:
            os.replace(notebook_path, target.with_suffix(".failed.ipynb"))
            raise
        finally:
            notebook_path.unlink(missing_ok=True)
        notebook.metadata.pop("papermill", None)
        notebook.metadata.pop("widgets", None)  # their state, whose names are new each time
        if inputs:
            notebook.metadata["epkit_inputs"] = inputs()
        for cell in notebook.cells:
            cell.metadata.pop("papermill", None)
            cell.metadata.pop("execution", None)
            if "outputs" in cell:  # progress bars
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, temporary)


def _executed(
    source: Path, target: Path, parameters: dict, kernel: Kernel, again: bool = True
) -> nbformat.NotebookNode:
    """What papermill makes, and writes to `target`; a kernel that dies is replaced if `again`."""
    try:
        run_sync(_make_ready)(kernel)
    except OSError as error:  # told apart from those of `target`
        raise KernelDied(f"{source.stem}: no kernel can be started ({error.strerror or error})") from error
    try:
        return papermill.execute_notebook(
            str(source), str(target), parameters, kernel_name="python3", cwd=str(CHECKOUT),
            progress_bar=False, stderr_file=sys.stderr, start_timeout=KERNEL_ANSWERS, km=kernel,
        )  # fmt: skip
    except RuntimeError as error:  # nbclient's DeadKernelError, jupyter_client's RuntimeError
        reason = str(error).strip().rstrip(".")
        guess = " (killed, or too little memory?)" if "died" in reason else ""
        died = f"{source.stem}: {reason}{guess}; what it finished is kept"
        if not again:
            raise KernelDied(f"{died}. The same command goes on from there.") from error
        print(f"{died}. Once more.", file=sys.stderr)
        with kernels() as (another,):
            return _executed(source, target, parameters, another, again=False)
    finally:
        kernel.close_client()


async def _make_ready(kernel: Kernel) -> None:
    """Start a kernel, or empty it of what the last notebook left."""
    if not kernel.has_kernel:
        await kernel.start_kernel(cwd=str(CHECKOUT), extra_arguments=KERNEL_ARGUMENTS)
        kernel.started = True
        return
    client = kernel.client()
    client.start_channels()
    await client.execute("%reset -f", reply=True, timeout=KERNEL_ANSWERS)
    kernel.close_client()
