"""The whole line on this machine: a Ray head of its own, the sweep as a Ray job, the fit, the report.

python -m sweeps.line recipe=laptop        what ``make sweep`` runs; takes the settings of sweeps/sizes.py
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gpt3core import cli
from gpt3core.errors import StoreError
from gpt3core.store import places
from sweeps import command
from sweeps.cluster import connect, processes, scratch

CODE = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0
# before a line of Ray's own, where it prints these: colours, and moment, level and file
DRESSED = re.compile(r"\x1b\[[\d;]*m|^\d{4}-\d\d-\d\d [\d:,]+\t[A-Z]+ \w+\.py:\d+ -- ")
OF_RAY = re.compile(  # what it says of a job that does well, which holds for other heads alone
    r"Job submission server address: .*|Job 'raysubmit_\w+' (submitted successfully|succeeded)|Next steps|"
    r"(Query the (logs|status) of the job|Request the job to be stopped):|ray job (logs|status|stop) raysubmit_\w+|"
    r"Tailing logs until the job exits .*|Running entrypoint for job raysubmit_\w+: .*|Runtime env is setting up\.|"
    r"WebSocket closed for job raysubmit_\w+ .*close code 1000"
)
RULE = re.compile(r"-*")  # blank lines and rules around a sentence of Ray's; a rule is as long as the sentence
STOP_SECONDS = 8.0


def main(argv: Sequence[str]) -> int:
    """The command: the exit code of the first step that fails, or of the sweep."""
    settings, flags = cli.split(argv, ("--help", "--keys"))
    if "--help" in flags:
        print(__doc__)
        return 0
    if "--keys" in flags:
        return command.sweep(argv, usage="")
    order = command.read(settings)
    command.refuse(order)  # before a cluster is started
    started = time.monotonic()
    try:
        with head() as environment:
            swept = _submit(["sweeps/sizes.py", *settings], environment)
    except KeyboardInterrupt:
        print("finished runs stay: the same command goes on, the others from their checkpoints", file=sys.stderr)
        raise
    root = f"runs={places.portable(order.root)}"
    sweep = f"sweep={order.recipe.name}"
    if swept not in (0, 3, 4):  # 3: done, but a checkpoint was damaged; 4: stopped at a limit, with what it has
        return swept
    for step in (["analysis.fit", "figures=false"], ["dashboards.report"]):  # the report has the figures
        if code := _run([sys.executable, "-m", *step, root, sweep], dict(os.environ)):
            return code
    print(f"the whole line took {time.monotonic() - started:.0f} s")
    return swept


def _run(words: list[str], environment: dict[str, str]) -> int:
    print(f"$ {' '.join(words)}", flush=True)
    return subprocess.run(words, env=environment, cwd=CODE, check=False).returncode


def _submit(words: list[str], environment: dict[str, str]) -> int:
    """Run a command as a Ray job, with what it prints; what Ray says of the job itself holds for other heads alone."""
    line = ["ray", "job", "submit", "--", *words]
    print(f"$ {' '.join(line)}", flush=True)
    unbuffered = {**environment, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        line, env=unbuffered, cwd=CODE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        try:
            for said in _told(child.stdout):
                print(said, end="", flush=True)
        except BaseException:
            child.kill()
            raise
    return child.returncode


def _told(lines: Iterable[str]) -> Iterator[str]:
    """What ray job submit prints, each line as it comes, without what Ray says of a job that does well.

    Blank lines and rules wait for the next line, which tells whose they are.
    """
    held: list[str] = []
    lengths: set[int] = set()  # of the blank lines and rules that belong to Ray's last sentence
    for line in lines:
        plain = _undressed(line)
        if RULE.fullmatch(plain):
            held += [] if len(plain) in lengths else [line]
            continue
        lengths = {0, len(plain)} if OF_RAY.fullmatch(plain) else set()
        yield from (said for said in (*held, line) if not {len(_undressed(said))} & lengths)
        held = []
    yield from held


def _undressed(line: str) -> str:
    return DRESSED.sub("", DRESSED.sub("", line)).strip()


@contextlib.contextmanager
def head() -> Iterator[dict[str, str]]:
    """A Ray head for the block, with ports, folder and token of its own; yields the environment that reaches it.

    All of it listens on loopback alone. ``--node-ip-address=127.0.0.1`` is not enough for that: ``ray start`` puts the
    machine's address in its place, and GCS, raylet and workers then listen on all interfaces, unless Ray is told that
    there is no cluster but this machine (a switch that it has for Windows and macOS). ``ray stop`` would end every Ray
    on the machine, so the head is a child of this process and ends with it.
    """
    folder = scratch.make()
    port, dashboard, client, agent = _free_ports(4)
    environment = _environment()
    words = ["ray", "start", "--head", "--block", "--disable-usage-stats", f"--port={port}", f"--temp-dir={folder}"]
    words += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    words += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
    signal.signal(signal.SIGTERM, _as_interrupt)
    signal.signal(signal.SIGHUP, _as_interrupt)
    log = open(Path(folder) / "head.log", "wb")  # noqa: SIM115  # closed below, after the child
    child = subprocess.Popen(
        words,
        env=environment,
        cwd=CODE,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=processes.end_with_parent,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        servers = [f"{address}/api/jobs/", f"http://127.0.0.1:{agent}/api/local_raylet_healthz"]
        _wait_for(servers, environment["RAY_AUTH_TOKEN"], child, Path(folder) / "head.log")
        print(
            f"started a Ray head on 127.0.0.1:{port} (loopback only, with a token of its own; it stops with the sweep)",
            flush=True,
        )
        yield {**environment, "RAY_API_SERVER_ADDRESS": address, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        _stop(child, folder, environment["RAY_AUTH_TOKEN"])
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """What a head of its own, its jobs and their commands are given."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # one machine: all processes on loopback
        **connect.UNUSED,
    }
    if sys.stdout.isatty():  # the job's output is a pipe, which a person reads here
        environment["COLUMNS"] = str(shutil.get_terminal_size().columns)
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    return environment


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _wait_for(urls: Sequence[str], token: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Until each server has answered, in this order: the dashboard, which takes jobs, the agent, which starts them."""
    waiting = [urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}) for url in urls]
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(waiting[0], timeout=5):
            del waiting[0]
        if not waiting:
            return
        time.sleep(0.3)
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise StoreError(f"the local Ray head did not start ({last}): see whether ray start --head works here")


def _stop(child: subprocess.Popen[bytes], folder: str, token: str) -> None:
    """End the head and all that it started: jobs and workers too, which have sessions of their own."""
    child.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(STOP_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    while (left := _processes(folder, child.pid, token)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.poll()
        time.sleep(0.05)
    child.wait()


def _processes(folder: str, session: int, token: str) -> list[int]:
    """Processes alive of a session, with a folder on their command line, or with a token in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            known = token.encode() in (entry / "environ").read_bytes()
            if fields[0] != "Z" and (known or folder.encode() in words or int(fields[3]) == session):
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    cli.run(main)
