"""Real worker processes, with jobs small enough to need no recordings."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from vx.jobs import Ended, Event, SalvageJob
from vx.worker import ENVIRONMENT, Worker, WorkerLimits, WorkerPool

LIMITS = WorkerLimits(nice=0, memory=4 << 30)


@pytest.fixture
def pool() -> WorkerPool:
    return WorkerPool(LIMITS)


async def events_of(worker: Worker) -> list[Event]:
    events = []
    while (event := await worker.receive()) is not None:
        events.append(event)
    return events


NO_WORK = SalvageJob(folder="/", parts=())


def hang(job: bytes, sock: socket.socket, limits: WorkerLimits) -> None:
    """What a worker does whose camera, disk or library is stuck."""
    time.sleep(1000)


@pytest.fixture
def stuck_pool() -> WorkerPool:
    return WorkerPool(LIMITS, main=hang)


async def test_a_job_runs_to_its_end(pool: WorkerPool) -> None:
    async with pool.open_worker(NO_WORK) as worker:
        events = await events_of(worker)
        assert isinstance(events[-1], Ended)
        assert await worker.wait_exit() == "exit status 0"


async def test_leaving_the_block_ends_a_process_that_hangs(stuck_pool: WorkerPool) -> None:
    async with stuck_pool.open_worker(NO_WORK) as worker:
        await worker.stop()
    assert not await trio.Path(f"/proc/{worker.pid}").exists()


async def test_cancelled_it_ends_the_process_too(stuck_pool: WorkerPool) -> None:
    with trio.CancelScope() as scope:
        async with stuck_pool.open_worker(NO_WORK) as worker:
            scope.cancel()
            await worker.receive()
    assert scope.cancelled_caught
    assert not await trio.Path(f"/proc/{worker.pid}").exists()


async def test_a_killed_process_says_how_it_ended(stuck_pool: WorkerPool) -> None:
    async with stuck_pool.open_worker(NO_WORK) as worker:
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        assert await worker.receive() is None
        assert await worker.wait_exit() == "signal SIGKILL"
        await worker.stop()  # nobody is there to be told, which is no error
        worker.kill()


async def test_workers_are_started_at_the_same_time(pool: WorkerPool) -> None:
    ended = []

    async def work() -> None:
        async with pool.open_worker(NO_WORK) as worker:
            ended.append((await events_of(worker))[-1])

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(work)
    assert len(ended) == 10


def test_nothing_is_loaded_from_the_folder_in_which_the_server_was_started(tmp_path: Path) -> None:
    """It may be one into which others can write."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "multiprocessing.py").write_text("raise SystemExit('somebody else is here')")
    (tmp_path / "serve.py").write_text("""if True:
        import os
        import trio
        from vx.jobs import SalvageJob
        from vx.worker import WorkerLimits, WorkerPool

        async def main():
            pool = WorkerPool(WorkerLimits(nice=0, memory=4 << 30))
            async with pool.open_worker(SalvageJob(folder="/", parts=())) as worker:
                print(await worker.receive(), "PYTHONSAFEPATH" in os.environ)

        if __name__ == "__main__":
            trio.run(main)
    """)
    command = [sys.executable, str(tmp_path / "serve.py")]
    done = subprocess.run(command, cwd=tmp_path / "folder", capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Ended("), done.stderr
    assert done.stdout.endswith(" False\n"), "what the server starts besides is not concerned"


def test_a_worker_has_its_limits() -> None:
    script = """if True:
        import os, resource, signal
        from vx.child import WorkerLimits, restrict
        before = os.nice(0)
        restrict(WorkerLimits(nice=7, memory=3 << 30))
        print(os.nice(0) - before, resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CORE))
        os.kill(os.getpid(), signal.SIGTERM)
        print("still here")
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "7 (3221225472, 3221225472) (0, 0)\nstill here\n"


def test_a_worker_whose_server_is_gone_ends_without_a_word() -> None:
    """By whichever comes first, what it says or what it hears."""
    script = """if True:
        import socket
        from vx.child import ChildLink
        from vx.jobs import Ended
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        there.close()
        ChildLink(here).send(Ended(succeeded=True))
        print("still here")
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_memory_that_was_freed_is_used_again() -> None:
    script = """if True:
        import resource
        from vx.child import keep_freed_memory
        keep_freed_memory()
        faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        frame = bytearray(8 << 20)
        del frame
        before = faults()
        frame = bytearray(8 << 20)
        print(faults() - before)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200  # of 2048 pages


def test_what_the_fork_server_loads_for_workers_is_no_more_than_they_need() -> None:
    few = {"trio", "grpclib", "reportlab", "pyzipper", "font_roboto"}
    script = f"import vx.child, vx.media.export, sys; print(*{few} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_fork_server_has_no_thread_of_a_library() -> None:
    """What it forks would have half of that library."""
    script = "import vx.child, vx.media.export, os; print(len(os.listdir('/proc/self/task')))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
