"""The agent: takes orders from a file, answers each once.

    PYTHONPATH=/opt/odp python3 -m harness.guest --requests FILE --replies DEVICE
    PYTHONPATH=/opt/odp python3 -m harness.guest --request FILE

The first form serves until the machine stops; FILE is read as orders.py says, replies are lines of JSON, the
first of them (number 0) says that the agent is ready and what it found. The second takes one order (`-` is
standard input) and prints its reply; a case is prepared for before it runs.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import subprocess
import sys
import time
import traceback
import tty
from pathlib import Path
from typing import Callable, Dict, Optional

from harness.guest import channel, command
from harness.guest.errors import Unsupported
from harness.guest.prepare import Prepared, compiled
from harness.guest.trace.bpf_program import Program
from harness.values import codec
from harness.values.answer import Reply
from harness.values.case import Request, Watch

SHELL_TTY = "/dev/ttyS1"
SHELL = ("/bin/bash", "-i")
LOG_BYTES = 4096


class Agent:
    """Does what orders say; keeps the prepared machine between them. `say` takes what is told before the reply."""

    def __init__(self, say: Callable[[Reply], None]) -> None:
        self._say = say
        self._prepared: Optional[Prepared] = None
        self._compiled: Optional[Program] = None
        self._verbs: Dict[str, Callable[[Request], Reply]] = {
            "wait": self.wait,
            "compile": self.compile,
            "prepare": self.prepare,
            "spin": self.spin,
            "case": self.case,
            "capabilities": self.capabilities,
            "exec": self.execute,
            "shell": self.shell,
            "upstream": self.upstream,
            "trace": self.trace,
        }

    def do(self, request: Request) -> Reply:
        """The reply to one order; an exception of ours is a reply too."""
        verb = self._verbs.get(request.verb)
        if verb is None:
            known = ", ".join(self._verbs)
            return Reply(request.number, False, f"unknown verb {request.verb!r}; there are {known}")
        try:
            return verb(request)
        except Exception as error:  # the machine's last words must arrive
            problem = f"{type(error).__name__}: {error}"
            return Reply(request.number, False, problem, output=traceback.format_exc())

    def wait(self, request: Request) -> Reply:
        """Nothing."""
        return Reply(request.number, True)

    def compile(self, request: Request) -> Reply:
        """Compile the probes, for the preparation that follows."""
        self._compiled = compiled(request.device, request.probes)
        return Reply(request.number, True)

    def prepare(self, request: Request) -> Reply:
        """Bring the device up, attach the probes, rehearse."""
        if self._prepared is not None:
            self._prepared.close()
        program, self._compiled = self._compiled, None
        self._prepared = Prepared(request.device, probes=request.probes, program=program)
        return Reply(request.number, True, facts=self._prepared.facts)

    def spin(self, request: Request) -> Reply:
        """Run instructions; where time is counted in them, as many as nanoseconds."""
        until = time.monotonic() + request.spin_ns / 1e9
        while time.monotonic() < until:
            pass
        return Reply(request.number, True)

    def case(self, request: Request) -> Reply:
        """Run a case."""
        if request.case is None:
            return Reply(request.number, False, "an order `case` without a case")
        if self._prepared is None:
            self._prepared = Prepared(request.case.device, rehearse=False)
        return Reply(request.number, True, answer=self._prepared.run(request.case))

    def capabilities(self, request: Request) -> Reply:
        """What the device can do on demand, as facts."""
        if self._prepared is None:
            self._prepared = Prepared(request.device, rehearse=False)
        return Reply(request.number, True, facts=self._prepared.capabilities())

    def execute(self, request: Request) -> Reply:
        """Run a program, on the device of the request if it names one; report its output as it comes."""
        problem = self._absent(request)
        if problem:
            log = subprocess.run(("dmesg",), stdout=subprocess.PIPE, check=False).stdout[-LOG_BYTES:]
            return Reply(request.number, False, problem, output=log.decode(errors="replace"))
        status = command.run(
            request.argv,
            request.environment,
            lambda text: self._say(Reply(request.number, True, printed=text)),
        )
        return Reply(request.number, True, exit_status=status)

    def _absent(self, request: Request) -> str:
        """Wait until the driver has the request's device; return the problem if it does not come."""
        if self._prepared is None or not request.device:
            return ""
        try:
            self._prepared.wait()
        except (Unsupported, OSError) as error:
            return str(error)
        return ""

    def upstream(self, request: Request) -> Reply:
        """Run upstream's tests on the device, and tell of each."""
        from harness.guest import upstream

        if request.upstream is None:
            return Reply(request.number, False, "an order `upstream` without a selection")
        if self._prepared is None:
            self._prepared = Prepared(request.device)
        device = self._prepared.capabilities()["device"]
        facts = upstream.run(
            request.upstream, device, lambda test: self._say(Reply(request.number, True, test=test))
        )
        return Reply(request.number, True, facts=facts)

    def trace(self, request: Request) -> Reply:
        """Watch page faults while a command runs, and tell of them. Without a prepared device: this machine's own."""
        from harness.guest.trace import live

        tracer, environment = None, dict(request.environment)
        if self._prepared is not None:
            tracer = self._prepared.tracer
            environment["RDMA_DEVICE"] = self._prepared.capabilities()["device"]
            # Programs that meet over TCP first expect it.
            subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
        seen = live.run(
            request.watch or Watch(),
            tracer,
            request.argv,
            environment,
            lambda trace: self._say(Reply(request.number, True, trace=trace)),
        )
        return Reply(request.number, True, exit_status=seen.exit_status, output=seen.output, facts=seen.facts)

    def shell(self, request: Request) -> Reply:
        """Run a shell on the second serial line until it exits, also without the device: to see why it is missing."""
        line = os.open(SHELL_TTY, os.O_RDWR | os.O_NOCTTY)
        try:
            problem = self._absent(request)
            if problem:
                os.write(line, f"{problem}\r\n".encode())
            environment = {**os.environ, **request.environment, "TERM": os.environ.get("TERM", "vt100")}
            program = ("setsid", "--ctty", "--wait", *(request.argv or SHELL))
            status = subprocess.call(program, stdin=line, stdout=line, stderr=line, env=environment)
            status = command.status_of(status)
        finally:
            os.close(line)
        return Reply(request.number, True, exit_status=status)


class ReplyLine:
    """The device that replies are written to, a line each."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_NOCTTY)
        if os.isatty(self._fd):
            tty.setraw(self._fd)

    def write(self, reply: Reply) -> None:
        """Write all of it."""
        data = codec.dumps(reply).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]


def serve(source: str, destination: str) -> None:
    """Answer orders for ever."""
    replies = ReplyLine(destination)
    agent = Agent(replies.write)
    warm = import_all()
    gc.collect()
    gc.freeze()
    gc.disable()
    file = channel.OrderFile(source)
    replies.write(Reply(0, True, facts=warm))
    done = 0
    while True:
        done, text = file.next(done)
        try:
            reply = agent.do(channel.parse(text))
        except channel.BadOrder as error:
            reply = Reply(done, False, f"bad order: {error}")
        replies.write(reply)


def import_all() -> Dict[str, str]:
    """Import what cases will need; says which versions, or what could not be imported and why."""
    facts = {"python": sys.version.split()[0], "kernel": os.uname().release}
    for name in ("pyroute2", "bcc", "pyverbs", "harness.guest.rdma.connection"):
        try:
            module = importlib.import_module(name)
            facts[name] = str(getattr(module, "__version__", "imported"))
        except ImportError as error:
            facts[name] = f"not imported: {error}"
    return facts


def once(source: str) -> int:
    """Take one order, print its reply; returns the exit status."""
    text = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        request = channel.parse(text) if text[:1].isdigit() else codec.loads(Request, text.decode())
    except ValueError as error:
        print(codec.dumps(Reply(-1, False, f"bad order: {error}")))
        return 2
    reply = Agent(lambda news: print(codec.dumps(news), flush=True)).do(request)
    print(codec.dumps(reply))
    return 0 if reply.ok else 1


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python3 -m harness.guest", description="The agent on the machine.")
    parser.add_argument("--requests", metavar="FILE", help="file in which requests appear")
    parser.add_argument("--replies", metavar="DEVICE", help="device to write replies to")
    parser.add_argument("--request", metavar="FILE", help="answer this one request and print the reply")
    args = parser.parse_args()
    if args.request:
        return once(args.request)
    if not (args.requests and args.replies):
        parser.error("either --request, or --requests and --replies")
    serve(args.requests, args.replies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
