"""A build on a terminal: what it shows while it runs, what stays when it is over, and what a null build never loads."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from workspace import DEVICE, DODO, MANIFEST, Workspace, write_light

from quantbuild import progress

# Tells at the end of the process whether rich was loaded.
SPYING_DODO = (
    DODO
    + """
import atexit, sys
from pathlib import Path
atexit.register(lambda: Path("rich.txt").write_text(str("rich" in sys.modules)))
"""
)
# A metric of the user's that takes its time over each sample.
SLOW_METRIC = """
import sys, time

def score(outputs, label):
    assert "rich" not in sys.modules, "a worker loaded rich"
    time.sleep(0.03)
    return 1.0

score.higher_is_better = True
"""
SLOW = MANIFEST.replace('metric = "top1"', 'metric = "slow:score"')


class Shown(NamedTuple):
    """What a terminal got: as it came, and as lines without control sequences."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)
        return [line for line in re.split(r"[\r\n]+", text) if line]


def on_terminal(workspace: Workspace, *arguments: str, interrupt_at: str | None = None, term: str = "xterm") -> Shown:
    """Run doit on a terminal of 100 columns; with `interrupt_at`, press Ctrl-C when that text was shown."""
    main, side = pty.openpty()
    environment = {**workspace.environment, "TERM": term, "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        workspace.command("doit", *arguments),
        cwd=workspace.root,
        env=environment,
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    got = b""
    deadline = time.monotonic() + 300
    while piece := _read(main):
        got += piece
        assert time.monotonic() < deadline, got[-2000:]
        if interrupt_at is not None and interrupt_at.encode() in got:
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    os.close(main)
    return Shown(process.wait(timeout=60), got.decode())


def _read(main: int) -> bytes:
    try:
        return os.read(main, 65536)
    except OSError as error:  # Linux says so at the end, where others return nothing
        assert error.errno == errno.EIO
        return b""


@pytest.fixture
def slow(tmp_path: Path) -> Workspace:
    workspace = write_light(tmp_path / "slow", SLOW + DEVICE)
    (workspace.root / "slow.py").write_text(SLOW_METRIC)
    (workspace.root / "dodo.py").write_text(SPYING_DODO)
    return workspace


def test_a_terminal_shows_steps_samples_and_time_left_and_keeps_the_closing_line(slow: Workspace) -> None:
    first = on_terminal(slow, "report")
    assert first.code == 0, first.raw
    assert any(re.fullmatch(r"\d+ of 12 steps done(, about \d+ s left)?", line) for line in first.lines)
    assert any(re.fullmatch(r"  evaluate:m/\w+  \d s  \d+ of 60 samples, \d+ a second", line) for line in first.lines)
    assert first.lines[-1] == "quantbuild: 12 executed, 0 restored, 0 up to date, 0 failed"
    # Each step's own line stays, once; the cursor that was hidden is shown again; nothing depends on colours.
    assert sum(line.startswith("  evaluate:m/a  ") and "(never built)" in line for line in first.lines) == 1
    assert first.raw.rindex("\x1b[?25h") > first.raw.rindex("\x1b[?25l")
    assert not re.search(r"\x1b\[[0-9;]*m", first.raw)
    assert (slow.root / "rich.txt").read_text() == "True"

    again = on_terminal(slow, "report")
    assert again.lines[-1] == "quantbuild: 0 executed, 0 restored, 12 up to date, 0 failed"
    assert "\x1b" not in again.raw
    assert (slow.root / "rich.txt").read_text() == "False"

    # The second time, what it took before tells how long it will take.
    third = on_terminal(slow, "-a", "evaluate:m/a")
    assert any(re.search(r"steps done, about \d+ s left$", line) for line in third.lines), third.raw


def test_without_a_terminal_or_on_a_dumb_one_there_are_plain_lines(slow: Workspace) -> None:
    output = slow.doit("quantize")
    assert "\x1b" not in output
    assert (slow.root / "rich.txt").read_text() == "False"
    dumb = on_terminal(slow, "evaluate", term="dumb")
    assert dumb.code == 0
    assert "\x1b" not in dumb.raw
    assert (slow.root / "rich.txt").read_text() == "False"
    assert re.fullmatch(r"quantbuild: \d executed, 0 restored, \d up to date, 0 failed", dumb.lines[-1])


def test_a_failure_on_a_terminal_tells_its_log_and_exits_1(slow: Workspace) -> None:
    (slow.root / "slow.py").write_text(SLOW_METRIC.replace("1.0", "1 / 0"))
    failed = on_terminal(slow, "evaluate")
    assert failed.code == 1
    (log,) = {match[1] for line in failed.lines if (match := re.search(r"evaluate:m/float32 .*; log: (\S+)$", line))}
    assert "ZeroDivisionError" in (slow.root / log).read_text()
    assert re.fullmatch(r"quantbuild: \d executed, 0 restored, 0 up to date, 1 failed", failed.lines[-1])


def test_ctrl_c_takes_the_display_away(slow: Workspace) -> None:
    ended = on_terminal(slow, "evaluate", interrupt_at="samples, ")
    assert ended.code == 130
    assert ended.lines[-1] == "quantbuild: interrupted by SIGINT; finished steps are kept"
    assert "failed" not in ended.raw  # the step in flight is no failure of its own
    assert ended.raw.rindex("\x1b[?25h") > ended.raw.rindex("\x1b[?25l")


def test_threads_that_tell_much_and_the_one_that_draws_never_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0005)
    monkeypatch.setenv("TERM", "xterm")
    main, side = pty.openpty()
    threading.Thread(target=lambda: [None for _ in iter(lambda: _read(main), b"")], daemon=True).start()
    with os.fdopen(side, "w") as stream:
        display = progress.Display(stream)
        display.planned([f"evaluate:{half}/{at}" for half in range(2) for at in range(400)], lambda step: None)

        def tell(half: int) -> None:
            for at in range(400):
                step = f"evaluate:{half}/{at}"
                display.started(step, None)
                display.progressed(step, at, 400)
                display.paused(step)
                display.closed(step, 0.01)
                display.line(step)

        threads = [threading.Thread(target=tell, args=(half,), daemon=True) for half in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
        assert display.lines() == ["800 of 800 steps done"]
        display.stop()


def test_without_a_terminal_a_long_steps_start_tells_how_long_it_took_last_time(light: Workspace) -> None:
    assert "begun" not in light.doit("evaluate")  # nothing is known yet
    record = light.root / "build/m/a/evaluation.json.record.json"
    content = json.loads(record.read_bytes())
    content["run"]["seconds"] = 125.0
    record.write_text(json.dumps(content))
    lines = light.doit("-a", "evaluate").splitlines()
    assert [line for line in lines if "begun" in line] == ["  evaluate:m/a  begun; it took 2 min 05 s last time"]
    assert lines.index("  evaluate:m/a  begun; it took 2 min 05 s last time") < next(
        number for number, line in enumerate(lines) if line.startswith("  evaluate:m/a  ") and "(forced)" in line
    )
