"""The bcc program of a driver's probes: compiled without the driver, attached once it is there.

Compiling is most of what a preparation costs, and depends on nothing but the kernel: machines that differ in a module
go on from one in which it was done.
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
    """A driver's probes, compiled. Raises RuntimeError with what bcc said when they cannot be.

    `empty` ones return at once: what they cost is what probes cost whatever they do. `bpf` is bcc's object.
    """

    def __init__(self, driver: Driver, empty: bool = False) -> None:
        from bcc import BPF

        class Unattached(BPF):  # type: ignore[misc]
            """bcc attaches what it knows by its name as soon as it is compiled; here its module comes later."""

            def _trace_autoload(self) -> None:
                pass

        self.driver = driver
        here = Path(__file__).parent
        text = "#define EMPTY\n" if empty else ""
        text += stages.declarations(driver)
        text += "".join((here / name).read_text() for name in ("probes.c", f"probes_{driver.name}.c"))
        with _said("the probes do not compile"):
            self.bpf: Any = Unattached(text=text.encode())

    def attach(self, found: Dict[str, Place]) -> None:
        """Attach the probes of the stages that were found; RuntimeError with what bcc said."""
        bpf = self.bpf
        there = [stage for stage in self.driver.stages if stage.name in found]
        with _said("the probes do not attach"):
            for symbol, probe in sorted({(found[s.name].symbol, s.probe) for s in there if s.shape == SPAN}):
                bpf.attach_kprobe(event=symbol, fn_name=f"enter_{probe}")
                bpf.attach_kretprobe(event=symbol, fn_name=f"leave_{probe}")
            for stage in there:
                function = f"{stage.module}__{found[stage.name].symbol}"
                if stage.shape == INTERRUPT:
                    bpf.attach_kfunc(fn_name=function)
                if stage.shape in (EXIT, INTERRUPT):
                    bpf.attach_kretfunc(fn_name=function)
                if stage.shape == QUEUE:
                    bpf.attach_raw_tracepoint(tp=_QUEUED, fn_name=f"raw_tracepoint__{_QUEUED}")

    def descriptors(self) -> Tuple[int, ...]:
        """Of all programs that are loaded."""
        return tuple(function.fd for function in self.bpf.funcs.values())


def traceable(stage: Stage, place: Place) -> bool:
    """A trampoline is compiled for one function of one module, and needs that module's types."""
    if stage.shape not in (EXIT, INTERRUPT):
        return True
    wanted = (stage.module, stage.symbols[0])
    return (place.module, place.symbol) == wanted and (_BTF / place.module).exists()


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """An error with the compiler's own, which bcc writes to this process's standard error."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception as error:  # bcc raises bare Exception
            file.seek(0)
            lines: List[str] = file.read().decode(errors="replace").splitlines()
            said = [line for line in lines if "error: " in line][:3]
            raise RuntimeError("; ".join([what, str(error), *said])) from error
        finally:
            os.dup2(kept, 2)
            os.close(kept)
