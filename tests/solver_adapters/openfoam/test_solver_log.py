"""Following logs as OpenFOAM's solvers write them."""

import math

import pytest

from penstock_solvers.openfoam.log import SolverLog

ICOFOAM = """\
sigFpe : Enabling floating point exception trapping (FOAM_SIGFPE).
Create time

Starting time loop

Time = 0.005

Courant Number mean: 0 max: 0
smoothSolver:  Solving for Ux, Initial residual = 1, Final residual = 8.90511e-06, No Iterations 19
smoothSolver:  Solving for Uy, Initial residual = 0, Final residual = 0, No Iterations 0
DICPCG:  Solving for p, Initial residual = 1, Final residual = 0.0492854, No Iterations 12
time step continuity errors : sum local = 0.000466513, global = -1.79995e-19, cumulative = -1.79995e-19
DICPCG:  Solving for p, Initial residual = 0.590864, Final residual = 2.65225e-07, No Iterations 35
ExecutionTime = 0 s  ClockTime = 0 s

Time = 0.01

Courant Number mean: 0.0976825 max: 0.585607
smoothSolver:  Solving for Ux, Initial residual = 0.160686, Final residual = 6.83031e-06, No Iterations 19
smoothSolver:  Solving for Uy, Initial residual = 0.260828, Final residual = 9.65939e-06, No Iterations 18
DICPCG:  Solving for p, Initial residual = 0.428925, Final residual = 0.0103739, No Iterations 22
DICPCG:  Solving for p, Initial residual = 0.30209, Final residual = 5.26569e-07, No Iterations 33
End
"""


def follow(text: str, log: SolverLog | None = None) -> tuple[SolverLog, list[str]]:
    log = log or SolverLog()
    return log, [reason for line in text.splitlines() if (reason := log.follow(line)) is not None]


def test_a_healthy_log_is_summed_up() -> None:
    log, reasons = follow(ICOFOAM)
    assert reasons == []
    assert log.verdict is None
    summary = log.summary(0.25)
    assert summary.seconds == 0.25
    assert summary.time_steps == 2
    assert summary.max_courant == 0.585607
    assert summary.delta_t == 0.005
    assert summary.initial_residuals == {"Ux": 0.160686, "Uy": 0.260828, "p": 0.428925}
    assert summary.final_residuals == {"Ux": 6.83031e-06, "Uy": 9.65939e-06, "p": 5.26569e-07}


def test_an_adjusted_time_step_is_taken_as_printed() -> None:
    log, _ = follow("Courant Number mean: 0.1 max: 0.4\ndeltaT = 0.00119048\nTime = 0.00119048\nTime = 0.002\n")
    assert log.delta_t == 0.00119048


@pytest.mark.parametrize(
    "line",
    [
        "Courant Number mean: 12.5 max: 350.25",
        "Region: fluid Courant Number mean: 12.5 max: 350.25",
        "Interface Courant Number mean: 12.5 max: 350.25",
        "Mean and max Courant Numbers = 12.5 350.25",
    ],
)
def test_a_courant_number_that_blows_up_stops_the_run(line: str) -> None:
    _, reasons = follow(f"Time = 0.3\n{line}\n")
    assert len(reasons) == 1
    assert "Courant number 350.25 at time 0.3, above max_courant = 100" in reasons[0]
    assert "deltaT" in reasons[0]
    assert follow(f"Time = 0.3\n{line}\n", SolverLog(max_courant_allowed=400))[1] == []


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "NaN"])
def test_a_residual_that_is_no_number_stops_the_run(value: str) -> None:
    line = f"DICPCG:  Solving for p, Initial residual = {value}, Final residual = {value}, No Iterations 1001"
    log, reasons = follow(f"Time = 0.02\n{line}\n")
    assert len(reasons) == 1
    assert reasons[0].startswith("diverged: the residual of p is")
    assert not any(math.isnan(v) for v in log.final_residuals.values())


def test_a_nan_courant_number_stops_the_run() -> None:
    assert "diverged" in follow("Courant Number mean: nan max: nan\n")[1][0]


def test_a_fatal_error_is_quoted_without_its_source_lines() -> None:
    log, reasons = follow(
        "--> FOAM FATAL IO ERROR: \n"
        'keyword div(phi,U) is undefined in dictionary "divSchemes"\n'
        "\n"
        "file: /case/system/fvSchemes.divSchemes from line 20 to line 21.\n"
        "\n"
        "    From function const Foam::entry& Foam::dictionary::lookupEntry(const Foam::word&) const\n"
        "    in file db/dictionary/dictionary.C at line 350.\n"
        "\n"
        "FOAM exiting\n"
    )
    assert reasons == []  # OpenFOAM ends by itself
    assert log.verdict == (
        'keyword div(phi,U) is undefined in dictionary "divSchemes" file: /case/system/fvSchemes.divSchemes from line 20 to line 21.'
    )


def test_a_fatal_error_of_a_parallel_run_is_read_without_rank_numbers() -> None:
    log, _ = follow(
        "[1] --> FOAM FATAL ERROR: \n[1] number of processor directories = 2\n[1] \n[1]     From function foo\n"
    )
    assert log.verdict == "number of processor directories = 2"


def test_a_trapped_floating_point_exception_is_told_from_the_banner() -> None:
    log, _ = follow(
        ICOFOAM + "#0  Foam::error::printStack(Foam::Ostream&) at ??:?\n#1  Foam::sigFpe::sigHandler(int) at ??:?\n"
    )
    assert log.verdict is not None
    assert "floating point exception" in log.verdict
    assert "at time 0.01" in log.verdict


@pytest.mark.parametrize(
    ("before", "line"),
    [
        (
            "libpenstockStream.so: cannot open shared object file: No such file or directory",
            "Cannot load function type penstockStream",  # v1912, which goes on without it
        ),
        (
            "libzmq.so.5: cannot open shared object file: No such file or directory",
            "Unknown function type penstockStream",
        ),
        ("", "    Unknown functionObject type penstockStream"),
    ],
)
def test_a_function_object_that_was_not_loaded_ends_the_run(before: str, line: str) -> None:
    log, reasons = follow(f"{ICOFOAM[:90]}\n--> FOAM Warning :\n{before}\n{line}\n")
    assert len(reasons) == 1
    assert (before or line.strip()) in reasons[0]
    assert "penstock openfoam build" in reasons[0]
    assert log.time_steps == 0


def test_another_function_object_may_be_missing() -> None:
    assert follow("libother.so: cannot open shared object file\nUnknown function type other\n")[1] == []
