"""What runs in a worker process: read a request, do the action, write the reply; one step at a time."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path

import msgspec

from quantbuild import reporting
from quantbuild.errors import StepError, UnreachableError, told
from quantbuild.step import Job
from quantbuild.system_memory import begin_peak, peak_bytes, resident_bytes
from quantbuild.workers import Reply, Request


def main() -> None:
    """Serve requests from descriptor 0 until it closes; replies go to the descriptor named on the command line."""
    replies = os.fdopen(int(sys.argv[1]), "wb", buffering=0)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # A worker whose parent was killed must not live on. A thread that waits for end of file notices it while a step
    # runs; PR_SET_PDEATHSIG would not do, since it fires when the parent's *thread* ends.
    threading.Thread(target=_watch, args=(sys.stdin.fileno(), requests), daemon=True).start()
    sys.path.append(str(Path.cwd()))  # for the user's own modules, which must not hide an installed one
    while True:
        request = msgspec.json.decode(requests.get(), type=Request)
        _send_output_to(request.log)
        reporting.listen(lambda done, total: _send(replies, Reply(progress=(done, total))))
        begin_peak()
        reply = msgspec.structs.replace(_do(request.job), peak_bytes=peak_bytes())
        reporting.listen(None)
        with contextlib.suppress(OSError):  # a log on a full disk costs no result
            sys.stdout.flush()
            sys.stderr.flush()
        _send(replies, reply)


def _send(replies: io.FileIO, reply: Reply) -> None:
    replies.write(msgspec.json.encode(reply) + b"\n")


def _watch(descriptor: int, requests: queue.SimpleQueue[bytes]) -> None:
    with os.fdopen(descriptor, "rb", closefd=False) as stream:
        for line in stream:
            requests.put(line)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what a step started (a benchmark's processes) must not live on either
    os._exit(0)


def _send_output_to(log: str) -> None:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _do(job: Job) -> Reply:
    try:
        action = importlib.import_module(f"quantbuild.actions.{job.action}")
        values = action.run(job)
        return Reply(values=values, resident_bytes=resident_bytes())
    except StepError as error:
        unreachable = isinstance(error, UnreachableError)
        return Reply(error=f"{job.step}: {error}", unreachable=unreachable, resident_bytes=resident_bytes())
    except MemoryError:
        _log_traceback()
        return Reply(error=f"{job.step}: out of memory; close other programs or use fewer samples", by_machine=True)
    except Exception as error:  # noqa: BLE001 - the rim of a worker: the traceback goes to the log, one line to the user
        _log_traceback()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return Reply(error=f"{job.step}: {told(error)}", by_machine=True)
        first = next(iter(str(error).strip().splitlines()), "")
        return Reply(
            error=f"{job.step}: {type(error).__name__}: {first}"[:500] + "; see its log",
            unexpected=True,
            resident_bytes=resident_bytes(),
        )


def _log_traceback() -> None:
    with contextlib.suppress(OSError):
        traceback.print_exc()


if __name__ == "__main__":
    main()
