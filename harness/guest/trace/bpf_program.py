"""The bcc program of a driver's probes: compiled without the driver, attached once that is loaded.

Compiling is most of the cost of a preparation, and depends on the kernel only: machines that differ in a module are
restored from one snapshot in which it is done.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from harness.guest.trace import stages
from harness.guest.trace.stages import (
    EXIT,
    INTERRUPT,
    QUEUE,
    SPAN,
    Driver,
    Place,
    Stage,
)

_BTF = Path("/sys/kernel/btf")
_QUEUED = "workqueue_queue_work"


class Program:
    """A driver's probes, compiled; RuntimeError with bcc's message if they do not compile.

    `empty` ones return at once, to measure the fixed cost of a probe. `bpf` is bcc's object.
    """

    def __init__(self, driver: Driver, empty: bool = False) -> None:
        from bcc import BPF

        class Unattached(BPF):  # type: ignore[misc]
            """BPF that does not attach probes by their names once compiled: their module is loaded later."""

            def _trace_autoload(self) -> None:
                pass

        self.driver = driver
        here = Path(__file__).parent
        text = "#define EMPTY\n" if empty else ""
        text += stages.declarations(driver)
        text += "".join((here / name).read_text() for name in ("probes.c", f"probes_{driver.name}.c"))
        with _with_stderr("the probes do not compile"):
            self.bpf: Any = Unattached(text=text.encode())

    def attach(self, places: Dict[str, Place]) -> None:
        """Attach the probes of the stages that have a place; RuntimeError with bcc's message."""
        bpf = self.bpf
        attachable = [stage for stage in self.driver.stages if stage.name in places]
        with _with_stderr("the probes do not attach"):
            for symbol, probe in sorted(
                {(places[s.name].symbol, s.probe) for s in attachable if s.shape == SPAN}
            ):
                bpf.attach_kprobe(event=symbol, fn_name=f"enter_{probe}")
                bpf.attach_kretprobe(event=symbol, fn_name=f"leave_{probe}")
            for stage in attachable:
                function = f"{stage.module}__{places[stage.name].symbol}"
                if stage.shape == INTERRUPT:
                    bpf.attach_kfunc(fn_name=function)
                if stage.shape in (EXIT, INTERRUPT):
                    bpf.attach_kretfunc(fn_name=function)
                if stage.shape == QUEUE:
                    bpf.attach_raw_tracepoint(tp=_QUEUED, fn_name=f"raw_tracepoint__{_QUEUED}")

    def descriptors(self) -> Tuple[int, ...]:
        """Return the file descriptors of all loaded programs."""
        return tuple(function.fd for function in self.bpf.funcs.values())


def traceable(stage: Stage, place: Place) -> bool:
    """Tell whether the stage can be probed there: a trampoline fits one function of one module, and needs its BTF."""
    if stage.shape not in (EXIT, INTERRUPT):
        return True
    target = (stage.module, stage.symbols[0])
    return (place.module, place.symbol) == target and (_BTF / place.module).exists()


@contextlib.contextmanager
def _with_stderr(headline: str) -> Iterator[None]:
    """Add the compiler's errors, which bcc writes to this process's stderr, to an exception."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception as error:  # bcc raises bare Exception
            file.seek(0)
            lines: List[str] = file.read().decode(errors="replace").splitlines()
            errors = [line for line in lines if "error: " in line][:3]
            raise RuntimeError("; ".join([headline, str(error), *errors])) from error
        finally:
            os.dup2(kept, 2)
            os.close(kept)
