"""The batch scripts of a study, and the folder slurm/ of its run directory, which holds them."""

from __future__ import annotations

import re
import secrets
import shlex
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from penstock.slurm.profile import JobSection, Profile, WorkerJobs, load_profile, write_profile
from penstock.study import StudyError, is_file

FOLDER, PROFILE, NAME = "slurm", "profile.toml", "name"
SERVER, WORKERS, WORKER = "server.sbatch", "workers.sbatch", "worker.sh"
CONNECT_SECONDS = 60  # for which a worker's job waits for connect.json
MIB = 2**20


def write_scripts(study: str, profile: Profile, directory: Path) -> str:
    """Write slurm/ into a run directory: the scripts, the profile, and the name that all jobs begin with.

    Args:
        study: the study's name.
        profile: of the cluster.
        directory: absolute path of the run directory.

    Returns:
        The name that all jobs begin with.

    Raises:
        StudyError: the path of the run directory cannot be written into a script.
    """
    expect_plain(directory)
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    (directory / "logs").mkdir(exist_ok=True)  # Slurm makes no folder, and a job whose log has none dies
    # The jobs are found by their names, so no other study of this user may have the same name.
    name = jobs_name(directory) or f"penstock-{re.sub(r'[^A-Za-z0-9_.-]', '-', study)[:40]}-{secrets.token_hex(4)}"
    for file in (SERVER, WORKERS, WORKER):
        (folder / file).unlink(missing_ok=True)  # an earlier profile may have needed another script
    for file, text in render(study, name, profile, directory).items():
        (folder / file).write_text(text)
    write_profile(profile, folder / PROFILE)
    (folder / NAME).write_text(f"{name}\n")
    return name


def expect_plain(directory: Path) -> None:
    """Check that a path can stand between quotes in an #SBATCH line, which ends at a quote or a line break.

    Args:
        directory: absolute path of a run directory.

    Raises:
        StudyError: it holds a quote, a backslash or a control character.
    """
    for character in str(directory):
        if character in '"\\' or not character.isprintable():
            raise StudyError(
                [
                    f"--out {str(directory)!r}: holds the character {character!r}, which a batch script cannot hold in "
                    "a path: expected letters, digits, spaces and marks other than quotes; choose another --out"
                ]
            )


def render(study: str, name: str, profile: Profile, directory: Path) -> dict[str, str]:
    """Render the scripts of a study.

    Args:
        study: the study's name.
        name: what the names of its jobs begin with.
        profile: of the cluster.
        directory: absolute path of the run directory.

    Returns:
        Text by file name: scripts of the server's job and the workers' array; or, where server and workers share one
        job, of that job and of a worker in it.
    """
    environment = Environment(
        loader=PackageLoader("penstock.slurm", "."),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # shell, not HTML; texts of the profile are shell by intent, paths are quoted
    )
    environment.filters["quote"] = shlex.quote
    slurm = profile.slurm
    container = f"{slurm.container} " if slurm.container else ""
    values = {
        "study": study,
        "together": profile.together,
        "name": name,
        "directory": str(directory),
        "server": profile.server,
        "workers": profile.workers,
        "options": lambda job, title, log: "\n".join(options(profile, job, title, log)),
        "prepare": "\n".join([*(f"module load {shlex.quote(m)} || exit" for m in slurm.modules), *slurm.environment]),
        "penstock": f"{container}{shlex.quote(slurm.interpreter)} -m penstock.main",
        "connect_seconds": CONNECT_SECONDS,
    }
    files = (SERVER, WORKER) if profile.together else (SERVER, WORKERS)
    return {file: environment.get_template(f"{file}.j2").render(values) for file in files}


def options(profile: Profile, job: JobSection, name: str, log: str) -> list[str]:
    """Write the #SBATCH lines that jobs of server and workers, or both components of one job, have in common.

    Args:
        profile: of the cluster.
        job: its section for this job.
        name: of the job.
        log: path of the job's output file, with Slurm's % in the file's name alone.
    """
    slurm = profile.slurm
    folder, _, file = log.rpartition("/")
    out = folder.replace("%", "%%") + "/" + file
    lines = [f"--job-name={name}", f'--output="{out}"', f"--time={slurm_time(job.time)}", "--export=ALL"]
    if slurm.account:
        lines.append(f"--account={slurm.account}")
    if partition := job.partition or slurm.partition:
        lines.append(f"--partition={partition}")
    if qos := job.qos or slurm.qos:
        lines.append(f"--qos={qos}")
    cpus = job.cpus * (job.each if isinstance(job, WorkerJobs) else 1)
    if profile.together and (memory := memory_per_cpu(job, cpus)):
        lines.append(f"--mem-per-cpu={memory}M")  # Slurm would apply --mem of one component to the other, too
    elif job.memory:
        lines.append(f"--mem={max(1, job.memory // MIB)}M")
    if job.gpus:
        each = "task" if profile.together and isinstance(job, WorkerJobs) else "node"
        lines.append(f"--gpus-per-{each}={job.gpus}")
    return [f"#SBATCH {line}" for line in [*lines, *slurm.sbatch, *job.sbatch]]


def memory_per_cpu(job: JobSection, cpus: int) -> int:
    """Divide a job's memory by the cores that share it: MiB, rounded up; 0 where the profile gives no memory."""
    return -(-job.memory // (cpus * MIB)) if job.memory else 0


def slurm_time(seconds: float) -> str:
    """Write seconds as days-hours:minutes:seconds, for sbatch."""
    whole = int(seconds)
    return f"{whole // 86400}-{whole // 3600 % 24:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def submitted(directory: Path) -> bool:
    """Whether a run directory is one of `penstock submit`."""
    return is_file(directory / FOLDER / NAME)


def jobs_name(directory: Path) -> str:
    """Read what the names of a study's jobs begin with; "" where it was never submitted."""
    return (directory / FOLDER / NAME).read_text().strip() if submitted(directory) else ""


def used_profile(directory: Path) -> Profile:
    """Read the profile that a run directory keeps.

    Raises:
        StudyError: the file is missing or damaged.
    """
    return load_profile(directory / FOLDER / PROFILE)
