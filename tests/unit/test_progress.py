"""What a terminal shows while a build runs."""

import io
import os
import subprocess
import sys
import time

from quantbuild import reporting
from quantbuild.progress import Display, duration, remaining


def display(total: int) -> Display:
    made = Display(io.StringIO())
    made.planned(total)
    return made


def test_it_counts_steps_and_names_what_runs() -> None:
    shown = display(4)
    shown.started("convert:m", None)
    assert shown.lines(time.monotonic()) == ["0 of 4 steps done", "  convert:m  0 s"]
    shown.closed("convert:m")
    assert shown.lines(time.monotonic())[0].startswith("1 of 4 steps done")
    shown.stop()


def test_it_tells_samples_per_second() -> None:
    shown = display(1)
    shown.started("evaluate:m/a", None)
    shown.progressed("evaluate:m/a", 500, 1000)
    line = shown.lines(time.monotonic() + 10)[1]
    assert line == "  evaluate:m/a  10 s  500 of 1000 samples, 50 a second"
    shown.stop()


def test_the_time_left_of_the_last_step_comes_from_its_last_run() -> None:
    shown = display(1)
    shown.started("convert:m", 65.0)
    assert shown.lines(time.monotonic() + 5)[0] == "0 of 1 steps done, about 1 min 00 s left"
    shown.stop()


def test_nothing_is_said_of_the_time_left_while_it_is_unknown() -> None:
    shown = display(1)
    shown.started("convert:m", None)
    assert "left" not in shown.lines(time.monotonic() + 5)[0]
    shown.stop()
    assert remaining({"a": 3.0, "b": None}, {"a": 0.0, "b": 0.0}, 1.0) is None


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (0.4, 59, 65, 3600 * 2 + 60)] == ["0 s", "59 s", "1 min 05 s", "2 h 01 min"]


def test_progress_is_told_a_few_times_a_second_and_to_nobody_without_a_listener() -> None:
    told: list[tuple[int, int]] = []
    reporting.progress(1, 10)
    reporting.listen(lambda done, total: told.append((done, total)))
    for number in range(1000):
        reporting.progress(number, 1000)
    reporting.listen(None)
    assert told == [(0, 1000)]


def test_rich_is_not_imported_before_a_step_starts() -> None:
    code = "import sys, io, quantbuild.progress as p; p.Display(io.StringIO()); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


STRESS = """
import faulthandler, io, threading
import quantbuild.progress as progress
faulthandler.dump_traceback_later(30, exit=True)
progress.REFRESH_PER_SECOND = 500

class Terminal(io.StringIO):
    def isatty(self):
        return True  # rich draws from a thread of its own on a terminal only

shown = progress.Display(Terminal())
shown.planned(1600)

def work(thread):
    for number in range(200):
        step = f"step:{thread}/{number}"
        shown.started(step, 1.0)
        shown.progressed(step, number, 200)
        shown.line(step)
        shown.closed(step)

threads = [threading.Thread(target=work, args=(thread,), daemon=True) for thread in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
shown.stop()
print("finished")
"""


def test_many_threads_and_the_drawing_thread_do_not_wait_for_each_other_for_ever() -> None:
    """The drawing thread holds rich's lock when it asks for the lines; a thread that prints one holds ours."""
    environment = {**os.environ, "TERM": "xterm-256color"}
    command = [sys.executable, "-c", STRESS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "finished", done.stderr
