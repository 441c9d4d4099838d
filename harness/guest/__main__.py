"""The agent: reads requests from a file, answers each once.

    PYTHONPATH=/opt/odp python3 -m harness.guest --requests FILE --replies DEVICE
    PYTHONPATH=/opt/odp python3 -m harness.guest --request FILE

The first form serves until the machine stops; the format of FILE is in channel.py. Replies are lines of JSON; the
first one (number 0) says that the agent is ready, with facts. The second form answers one request (`-` is standard
input) and prints the reply; for a case it prepares the machine first.
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
from harness.guest.prepare import compiled, prepare
from harness.guest.target import Target
from harness.guest.trace.bpf_program import Program
from harness.values import codec
from harness.values.answer import Reply
from harness.values.case import Request, Watch

SHELL_TTY = "/dev/ttyS1"
SHELL = ("/bin/bash", "-i")
LOG_BYTES = 4096


class Agent:
    """Answers requests, and keeps the prepared target between them; `report` takes early replies to a request."""

    def __init__(self, report: Callable[[Reply], None]) -> None:
        self._report = report
        self._target: Optional[Target] = None
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
        """Return the reply to one request; an exception becomes a reply, too."""
        verb = self._verbs.get(request.verb)
        if verb is None:
            known = ", ".join(self._verbs)
            return Reply(request.number, False, f"unknown verb {request.verb!r}; there are {known}")
        try:
            return verb(request)
        except Exception as error:  # the host must learn of it
            problem = f"{type(error).__name__}: {error}"
            return Reply(request.number, False, problem, output=traceback.format_exc())

    def wait(self, request: Request) -> Reply:
        """Do nothing."""
        return Reply(request.number, True)

    def compile(self, request: Request) -> Reply:
        """Compile the probes, for the preparation that follows."""
        self._compiled = compiled(request.device, request.probes)
        return Reply(request.number, True)

    def prepare(self, request: Request) -> Reply:
        """Bring the device up, attach the probes, rehearse."""
        if self._target is not None:
            self._target.close()
        program, self._compiled = self._compiled, None
        self._target, facts = prepare(request.device, probes=request.probes, program=program)
        return Reply(request.number, True, facts=facts)

    def spin(self, request: Request) -> Reply:
        """Keep the CPU busy for `spin_ns`; in exact time that is a number of instructions."""
        until = time.monotonic() + request.spin_ns / 1e9
        while time.monotonic() < until:
            pass
        return Reply(request.number, True)

    def case(self, request: Request) -> Reply:
        """Run a case."""
        if request.case is None:
            return Reply(request.number, False, "a request `case` without a case")
        target = self._prepared(request.case.device, rehearsed=False)
        return Reply(request.number, True, answer=target.run(request.case))

    def capabilities(self, request: Request) -> Reply:
        """Return the ODP capabilities of the device, as facts."""
        target = self._prepared(request.device, rehearsed=False)
        return Reply(request.number, True, facts=target.capabilities())

    def execute(self, request: Request) -> Reply:
        """Run a program, on the request's device if it has one; report its output as it comes."""
        problem = self._missing(request)
        if problem:
            log = subprocess.run(("dmesg",), stdout=subprocess.PIPE, check=False).stdout[-LOG_BYTES:]
            return Reply(request.number, False, problem, output=log.decode(errors="replace"))
        status = command.run(
            request.argv,
            request.environment,
            lambda text: self._report(Reply(request.number, True, printed=text)),
        )
        return Reply(request.number, True, exit_status=status)

    def _missing(self, request: Request) -> str:
        """Wait for the request's device; return the problem if it does not come, else nothing."""
        if self._target is None or not request.device:
            return ""
        try:
            self._target.wait()
        except (Unsupported, OSError) as error:
            return str(error)
        return ""

    def upstream(self, request: Request) -> Reply:
        """Run upstream's tests on the device, and report each."""
        from harness.guest import upstream

        if request.upstream is None:
            return Reply(request.number, False, "a request `upstream` without a selection")
        device = self._prepared(request.device, rehearsed=True).capabilities()["device"]
        facts = upstream.run(
            request.upstream, device, lambda test: self._report(Reply(request.number, True, test=test))
        )
        return Reply(request.number, True, facts=facts)

    def trace(self, request: Request) -> Reply:
        """Trace page faults while a command runs, and report them; without a prepared target, this machine's own."""
        from harness.guest.trace import live

        tracer, environment = None, dict(request.environment)
        if self._target is not None:
            tracer = self._target.tracer
            environment["RDMA_DEVICE"] = self._target.capabilities()["device"]
            # Programs that exchange addresses over TCP need it.
            subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
        result = live.run(
            request.watch or Watch(),
            tracer,
            request.argv,
            environment,
            lambda trace: self._report(Reply(request.number, True, trace=trace)),
        )
        return Reply(
            request.number, True, exit_status=result.exit_status, output=result.output, facts=result.facts
        )

    def shell(self, request: Request) -> Reply:
        """Run a shell on the second serial line until it exits; print why the device is missing, if it is."""
        line = os.open(SHELL_TTY, os.O_RDWR | os.O_NOCTTY)
        try:
            problem = self._missing(request)
            if problem:
                os.write(line, f"{problem}\r\n".encode())
            environment = {**os.environ, **request.environment, "TERM": os.environ.get("TERM", "vt100")}
            program = ("setsid", "--ctty", "--wait", *(request.argv or SHELL))
            status = subprocess.call(program, stdin=line, stdout=line, stderr=line, env=environment)
            status = command.status_of(status)
        finally:
            os.close(line)
        return Reply(request.number, True, exit_status=status)

    def _prepared(self, device: str, rehearsed: bool) -> Target:
        """Return the target, prepared now if it is not yet."""
        if self._target is None:
            self._target, _ = prepare(device, rehearsed)
        return self._target


class ReplyLine:
    """The device to which replies are written, a line each."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_NOCTTY)
        if os.isatty(self._fd):
            tty.setraw(self._fd)

    def write(self, reply: Reply) -> None:
        """Write one reply."""
        data = codec.dumps(reply).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]


def serve(source: str, destination: str) -> None:
    """Answer requests for ever."""
    replies = ReplyLine(destination)
    agent = Agent(replies.write)
    facts = import_all()
    gc.collect()
    gc.freeze()
    gc.disable()
    file = channel.RequestFile(source)
    replies.write(Reply(0, True, facts=facts))
    done = 0
    while True:
        done, text = file.next(done)
        try:
            reply = agent.do(channel.parse(text))
        except channel.BadRequest as error:
            reply = Reply(done, False, f"bad request: {error}")
        replies.write(reply)


def import_all() -> Dict[str, str]:
    """Import what cases need; return versions, or why something could not be imported."""
    facts = {"python": sys.version.split()[0], "kernel": os.uname().release}
    for name in ("pyroute2", "bcc", "pyverbs", "harness.guest.rdma.connection"):
        try:
            module = importlib.import_module(name)
            facts[name] = str(getattr(module, "__version__", "imported"))
        except ImportError as error:
            facts[name] = f"not imported: {error}"
    return facts


def once(source: str) -> int:
    """Answer one request and print the reply; return the exit status."""
    text = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        request = channel.parse(text) if text[:1].isdigit() else codec.loads(Request, text.decode())
    except ValueError as error:
        print(codec.dumps(Reply(-1, False, f"bad request: {error}")))
        return 2
    reply = Agent(lambda early: print(codec.dumps(early), flush=True)).do(request)
    print(codec.dumps(reply))
    return 0 if reply.ok else 1


def main() -> int:
    """Parse the command line and run the agent."""
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
