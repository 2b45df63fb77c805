"""[timeouts]: how long Penstock waits for Ray, for processes to end, and for Slurm."""

from __future__ import annotations

from penstock_server.study.section import Seconds, Section


class TimeoutsSection(Section):
    """[timeouts]: how long Penstock waits; longer times suit a slow cluster or file system.

    How long clients and server may be silent is in [server].

    Attributes:
        start: seconds for each step of starting the server on Ray: Ray itself or a place on its cluster, the actors,
            and loading the checkpoint.
        stop: seconds for the last checkpoint, validation and export of a study that is stopped on Ray.
        interrupt: seconds that a study has for these, after Ctrl-C or SIGTERM, before its workers are stopped.
        answer: seconds for one answer of a Ray actor; the question is repeated for [server] server_timeout.
        connect: seconds for a connection to a Ray cluster.
        kill: seconds for processes of the server to end after SIGKILL, and for a Ray cluster to give the study's place
            back.
        worker_exit: seconds between SIGTERM and SIGKILL for workers on this machine.
        quick_death: a worker that dies sooner than this after its start counts as one that cannot run at all; the study
            fails when several do in a row.
        slurm: seconds that Slurm may give no answer before the study fails.
        slurm_exit: seconds for the cancelled workers of a study under Slurm to end.
    """

    start: Seconds = 120.0
    stop: Seconds = 60.0
    interrupt: Seconds = 6.0
    answer: Seconds = 5.0
    connect: Seconds = 10.0
    kill: Seconds = 20.0
    worker_exit: Seconds = 4.0
    quick_death: Seconds = 20.0
    slurm: Seconds = 900.0
    slurm_exit: Seconds = 20.0
