"""Sharing one machine: a benchmark is alone, and comes after the steps that can go first."""

import threading
import time

import pytest

from quantbuild import machine as machine_module
from quantbuild.machine import Machine
from quantbuild.memory import Claim, Memory
from quantbuild.workers import Residents


def test_a_benchmark_is_alone() -> None:
    machine = Machine(4)
    running = 0
    together: list[int] = []

    def step() -> None:
        nonlocal running
        for _ in range(20):
            with machine.shared():
                running += 1
                time.sleep(0.001)
                running -= 1

    def benchmark() -> None:
        for _ in range(5):
            with machine.exclusive():
                together.append(running)
                time.sleep(0.002)
                together.append(running)

    threads = [threading.Thread(target=step) for _ in range(4)] + [threading.Thread(target=benchmark) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert together == [0] * 20


def test_no_more_steps_run_at_once_than_there_are_slots() -> None:
    machine = Machine(2)
    running: list[int] = []
    most = 0
    lock = threading.Lock()

    def step() -> None:
        nonlocal most
        with machine.shared():
            with lock:
                running.append(1)
                most = max(most, len(running))
            time.sleep(0.01)
            with lock:
                running.pop()

    threads = [threading.Thread(target=step) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert most == 2


def test_a_benchmark_lets_expected_steps_go_first() -> None:
    machine = Machine(2)
    machine.expect({"evaluate:m/a"})
    order: list[str] = []

    def benchmark() -> None:
        with machine.exclusive():
            order.append("benchmark")

    thread = threading.Thread(target=benchmark)
    thread.start()
    time.sleep(0.05)
    with machine.shared():
        order.append("evaluate")
    machine.settled("evaluate:m/a")
    thread.join(timeout=30)
    assert order == ["evaluate", "benchmark"]


def test_a_benchmark_that_holds_the_last_thread_goes_ahead(monkeypatch: object) -> None:
    machine = Machine(2)
    machine.expect({"evaluate:never"})
    done = threading.Event()

    def benchmark() -> None:
        with machine.exclusive():
            done.set()

    threading.Thread(target=benchmark, daemon=True).start()
    assert done.wait(timeout=10 * machine_module.STALL_SECONDS)


def test_steps_run_side_by_side_only_as_far_as_the_memory_goes() -> None:
    def most_at_once(free_bytes: int) -> int:
        nobody = Residents(busy={}, idle={})
        memory = Memory(bound_bytes=None, free=lambda: free_bytes, residents=lambda: nobody, short=lambda text: None)
        machine = Machine(4, memory)
        running: list[str] = []
        seen: list[int] = []
        lock = threading.Lock()

        def step(name: str) -> None:
            with machine.shared(Claim(name, "tensorflow", 100)):
                with lock:
                    running.append(name)
                    seen.append(len(running))
                time.sleep(0.05)
                with lock:
                    running.remove(name)

        threads = [threading.Thread(target=step, args=(f"s{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(seen) == 6
        return max(seen)

    assert most_at_once(199) == 1
    assert most_at_once(1000) == 4


def test_a_step_that_waits_for_memory_starts_when_another_program_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine_module, "MEMORY_SECONDS", 0.02)
    free = 0
    nobody = Residents(busy={}, idle={})
    memory = Memory(bound_bytes=None, free=lambda: free, residents=lambda: nobody, short=lambda text: None)
    machine = Machine(2, memory)
    joined = threading.Event()

    def second() -> None:
        with machine.shared(Claim("b", "litert", 1)):
            joined.set()

    with machine.shared(Claim("a", "litert", 0)):
        threading.Thread(target=second, daemon=True).start()
        assert not joined.wait(timeout=0.2)
        free = 10
        assert joined.wait(timeout=30)
