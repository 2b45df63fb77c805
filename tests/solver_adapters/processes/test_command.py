"""Solvers that are commands: filled in, watched, and never outliving the worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from penstock_client.errors import Abandoned
from penstock_solvers.processes import CommandRunner, Scratch, SolverFailed, Task, check_command, run_program
from penstock_solvers.processes.command import format_command
from waiting import busy, wait_for

# Words by which this process finds what its tests started, and not what others run: how long these sleep, in seconds.
SLEEPS = [f"987{number}.{os.getpid()}" for number in range(7)]


def never() -> bool:
    return False


def task(log: Path | None = None, **parameters: float) -> Task:
    return Task(3, 1, parameters, {"PENSTOCK_SIMULATION": "3"}, log)


def program(directory: Path, text: str, name: str = "solver.sh") -> Path:
    path = directory / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., object]]:
    runners = []

    def start(
        command: list[str], given: Task | None = None, abandoned: Callable[[], bool] = never, **solver: object
    ) -> object:
        runners.append(CommandRunner({"command": command, "directory": str(tmp_path), **solver}))
        return runners[-1].run(given or task(), abandoned)

    yield start
    for runner in runners:
        runner.close()


def running(word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if word in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def test_parameters_are_filled_in_so_that_they_read_back_exactly(tmp_path: Path) -> None:
    nu = 0.1 + 0.2
    filled = format_command(["sh", "--nu={nu}", "{nu:.3g}", "{{}}"], {"nu": nu}, tmp_path)
    assert float(filled[1].removeprefix("--nu=")) == nu
    assert filled[2:] == ["0.3", "{}"]


def test_files_beside_the_study_are_found_from_the_other_folder_it_runs_in(tmp_path: Path) -> None:
    program(tmp_path, "")
    assert format_command(["./solver.sh", "solver.sh", "other.sh"], {}, tmp_path) == [
        str(tmp_path / "solver.sh"),
        str(tmp_path / "solver.sh"),
        "other.sh",
    ]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["no-such-solver"], "'no-such-solver' is not an installed program"),
        (["./no-such-solver"], "'./no-such-solver' does not exist"),
        (["notes.txt"], 'write "./notes.txt"'),
        (["./notes.txt"], "chmod +x"),
        (["sh", "--nu={viscosity}"], "'viscosity', which is not a parameter; expected one of nu"),
        (["sh", "{nu:q}"], "cannot be filled in"),
        (["sh", "{"], "cannot be filled in"),
    ],
)
def test_a_command_that_cannot_run_is_told_in_one_line(tmp_path: Path, command: list[str], expected: str) -> None:
    (tmp_path / "notes.txt").write_text("")
    solver = {"command": command, "directory": str(tmp_path), "parameters": ["nu"]}
    problems = check_command(solver)
    assert len(problems) == 1
    assert expected in problems[0]
    assert "\n" not in problems[0]
    runner = CommandRunner(solver)
    with pytest.raises(SolverFailed) as caught:
        runner.run(task(nu=1.0), never)
    runner.close()
    assert caught.value.reason == problems[0]


def test_a_usable_command_has_no_problems(tmp_path: Path) -> None:
    program(tmp_path, "")
    assert check_command({"command": ["./solver.sh", "{nu}"], "directory": str(tmp_path), "parameters": ["nu"]}) == []


def test_a_missing_working_folder_is_told(tmp_path: Path) -> None:
    problems = check_command({"command": ["sh"], "directory": str(tmp_path), "case": "runs"})
    assert problems == ["[solver] case = 'runs' is not a folder: expected the folder that the command is to run in"]


def test_it_runs_in_a_private_folder_that_is_gone_afterwards(tmp_path: Path, run: Callable[..., object]) -> None:
    program(tmp_path, 'pwd > "$1"; echo "$PENSTOCK_SIMULATION" >> "$1"; touch result; ls > /dev/null')
    run(["./solver.sh", f"{tmp_path}/told"])
    folder, simulation = (tmp_path / "told").read_text().split()
    assert simulation == "3"
    assert not Path(folder).exists()
    assert not (tmp_path / "result").exists()


def test_its_output_goes_to_the_log(tmp_path: Path, run: Callable[..., object]) -> None:
    program(tmp_path, "echo one; echo two >&2; printf three")
    run(["./solver.sh"], task(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree"


def test_a_failure_shows_the_code_and_the_last_20_lines(tmp_path: Path, run: Callable[..., object]) -> None:
    program(tmp_path, "for i in $(seq 50); do echo line $i; done; exit 7")
    with pytest.raises(SolverFailed, match="ended with code 7") as caught:
        run(["./solver.sh"])
    assert caught.value.tail == tuple(f"line {i}" for i in range(31, 51))
    assert "The last 20 lines of its log:\n  line 31\n" in str(caught.value)


def test_a_crash_names_the_signal(tmp_path: Path, run: Callable[..., object]) -> None:
    program(tmp_path, "kill -SEGV $$")
    with pytest.raises(SolverFailed, match="was ended by SIGSEGV"):
        run(["./solver.sh"])


def test_it_is_stopped_with_all_its_children_after_the_wall_time(tmp_path: Path, run: Callable[..., object]) -> None:
    program(tmp_path, f"sleep {SLEEPS[1]} & echo started; sleep {SLEEPS[1]}")
    with pytest.raises(SolverFailed, match=r"longer than wall_time = 0.5 s") as caught:
        run(["./solver.sh"], wall_time=0.5)
    assert caught.value.tail == ("started",)
    assert running(SLEEPS[1]) == []


def test_it_is_stopped_when_abandoned_even_if_it_will_not_listen(tmp_path: Path, run: Callable[..., object]) -> None:
    program(
        tmp_path, f"trap '' TERM; setsid sleep {SLEEPS[2]} & sleep {SLEEPS[2]} & while :; do sleep {SLEEPS[2]}; done"
    )
    started = time.monotonic()
    with pytest.raises(Abandoned):
        run(["./solver.sh"], abandoned=lambda: len(running(SLEEPS[2])) >= 2)
    assert time.monotonic() - started < 15 * busy()
    left = running(SLEEPS[2])
    for process in left:
        process.kill()  # what made itself a session of its own is beyond reach
    assert len(left) <= 1


def test_a_child_left_behind_by_a_program_that_ended_well_is_ended_too(
    tmp_path: Path, run: Callable[..., object]
) -> None:
    program(tmp_path, f"sleep {SLEEPS[3]} & exit 0")
    run(["./solver.sh"])
    assert running(SLEEPS[3]) == []


def test_nothing_outlives_a_worker_that_is_killed(tmp_path: Path) -> None:
    program(tmp_path, f"sleep {SLEEPS[4]} & sleep {SLEEPS[4]}")
    code = (
        "from penstock_solvers.processes.command import CommandRunner; from penstock_solvers.processes.task import Task;"
        f"CommandRunner({{'command': ['./solver.sh'], 'directory': {str(tmp_path)!r}}}).run(Task(1, 1, {{}}), lambda: False)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: len(running(SLEEPS[4])) == 2)
    worker.kill()
    worker.wait()
    wait_for(lambda: running(SLEEPS[4]) == [])


def test_nothing_outlives_a_guard_that_is_killed(tmp_path: Path, run: Callable[..., object]) -> None:
    program(tmp_path, f"sleep {SLEEPS[5]} & sleep {SLEEPS[5]}")

    def kill_the_guard() -> bool:
        sleeping = running(SLEEPS[5])
        if len(sleeping) == 2:
            os.kill(os.getsid(sleeping[0].pid), signal.SIGKILL)
        return False

    with pytest.raises(SolverFailed, match="was ended by SIGKILL"):
        run(["./solver.sh"], abandoned=kill_the_guard)
    assert running(SLEEPS[5]) == []


def test_ranks_run_under_mpirun_and_end_with_it(tmp_path: Path, run: Callable[..., object]) -> None:
    program(tmp_path, 'echo "rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE"')
    run(["./solver.sh"], task(tmp_path / "log"), ranks=3)
    assert sorted((tmp_path / "log").read_text().splitlines()) == [f"rank {i} of 3" for i in range(3)]
    with pytest.raises(Abandoned):
        run(["sleep", SLEEPS[6]], ranks=2, abandoned=lambda: len(running(SLEEPS[6])) >= 3)
    assert running(SLEEPS[6]) == []


def test_a_program_that_closes_its_output_is_still_watched(tmp_path: Path) -> None:
    program(tmp_path, "exec >&- 2>&-; sleep 0.5; exit 3")
    with pytest.raises(SolverFailed, match="ended with code 3"):
        run_program(
            [str(tmp_path / "solver.sh")],
            directory=tmp_path,
            environment=dict(os.environ),
            wall_time=30,
            abandoned=never,
        )


def test_a_template_is_prepared_once_and_removed_by_its_last_user(tmp_path: Path) -> None:
    prepared = []

    def prepare(folder: Path) -> None:
        folder.mkdir()
        prepared.append(folder)

    first, second = Scratch(tmp_path, "key", prepare), Scratch(tmp_path, "key", prepare)
    assert len(prepared) == 1
    first.close()
    assert second.template.is_dir()
    with second.simulation("1-1") as folder:
        Scratch(tmp_path, "other", prepare).close()
        assert folder.is_dir()
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_workers_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from penstock_solvers.processes.scratch import Scratch;"
        f"scratch = Scratch(Path({str(tmp_path)!r}), 'key', Path.mkdir); held = scratch.simulation('1-1'); held.__enter__();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "key").glob("simulation-*"))) == 1
    Scratch(tmp_path, "other", Path.mkdir).close()
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_cannot_be_prepared_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise SolverFailed("no mesh")

    with pytest.raises(SolverFailed, match="no mesh"):
        Scratch(tmp_path, "key", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_fails_the_simulation_and_not_the_worker(tmp_path: Path) -> None:
    task = Task(3, 1, {}, log=tmp_path / "missing" / "simulation-3.log")
    with CommandRunner({"command": ["true"], "directory": str(tmp_path)}) as runner:
        with pytest.raises(SolverFailed, match=r"files of simulation 3 cannot be written: .*simulation-3\.log"):
            runner.run(task, lambda: False)
        assert runner.run(Task(4, 1, {}), lambda: False).seconds > 0
