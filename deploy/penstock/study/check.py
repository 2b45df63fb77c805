"""Finding the problems of a study without running it, one line for each.

`penstock.study.file` finds what the study file alone shows; this module looks at the case, the solver, the model and
this machine.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
from collections.abc import Iterator

from penstock.study.file import make_importable
from penstock.study.python_solver import description, python_solver, raised, streamed_fields, unknown_parameters
from penstock.study.threads import available_cores
from penstock_client import PenstockError, Solver
from penstock_client.nearest import nearest
from penstock_server.buffer import available_memory, check_sizes
from penstock_server.checkpoint import check_part
from penstock_server.coordinator import make_spares, solver_description
from penstock_server.network import own_address
from penstock_server.recording import Recording, check_recording
from penstock_server.study import FieldSpec, ModelSection, ParameterSpace, SampleSpec, Study, parse_bytes
from penstock_server.trainer_rank import batch_share, buffer_share
from penstock_server.training import make_loss, make_members, make_optimizer, make_scheduler, resolve_device
from penstock_server.training.models import make_model
from penstock_server.training.models.loader import check_options
from penstock_solvers.solver import EXTERNAL

GIB = 2**30
SOBOL_NUMBERS = 21_201  # dimensions for which scipy has direction numbers, scipy.stats.qmc.Sobol.MAXDIM


def check_study(study: Study, *, here: bool = True) -> list[str]:
    """Find what would keep a study from running.

    The study's own modules are imported and its model is built; no solver is run.

    Args:
        study: as read.
        here: the study is to run on this machine, so its memory and devices are checked.

    Returns:
        A line for each problem, beginning with its place: "[table] key = value: ...".
    """
    make_importable(study)
    if study.training.source is not None:
        spec, problems = _recording(study)
    else:
        solver, problems = python_solver(study)
        problems += [*_parameters(study), *_entries(study), *_external_solver(study), *streamed_fields(study, solver)]
        problems += [*unknown_parameters(study, solver), *description(study)]
        spec = _spec(study, solver)
    problems += [*_model(study, spec, here), *_training(study, here), *(_server(study) if here else ())]
    return list(dict.fromkeys(" ".join(problem.split()) for problem in problems))


def warnings_for(study: Study, *, here: bool = True) -> list[str]:
    """Find what will run, but perhaps not as the user meant.

    Args:
        study: as read.
        here: the study is to run on this machine.

    Returns:
        A line for each warning.
    """
    warnings = []
    solver, cores = study.solver, available_cores()
    if here and study.training.source is None and solver.concurrency * solver.ranks > cores:
        warnings.append(
            f"[solver] concurrency = {solver.concurrency} with ranks = {solver.ranks} asks for "
            f"{solver.concurrency * solver.ranks} cores, {cores} are available: solvers and training will share them"
        )
    if study.training.source is None and not study.server.host.startswith("127."):
        warnings.append(
            f'[server] host = "{study.server.host}": clients need a key, but everyone who reaches that address may '
            "read the metrics there; see docs/security.md"
        )
    if solver.validation_simulations == 0:
        warnings.append("[solver] validation_simulations = 0: nothing is held out, so no error will be reported")
    if here and study.training.compile and shutil.which(os.environ.get("CXX", "g++")) is None:
        warnings.append(
            "[training] compile = true: torch.compile needs a C++ compiler, and g++ is not on the PATH (apt-get install "
            "g++, or set CXX): training will go on without it"
        )
    if solver.adapter == "openfoam" and study.training.source is None:
        from penstock_solvers.openfoam import case_warnings

        warnings += case_warnings(solver_description(study), study.samples.time)
    return warnings


def is_python_solver(study: Study) -> bool:
    """Whether the solver is a Python class, which the inline engine runs in its own process."""
    return study.solver.adapter is not None and study.solver.adapter not in EXTERNAL


def _parameters(study: Study) -> Iterator[str]:
    section, solver = study.parameters, study.solver
    for name, bounds in section.bounds.items():
        if not all(map(math.isfinite, bounds)):
            yield f"[parameters] {name} = {list(bounds)}: expected two finite numbers; write {name} = [0.5, 2.0]"
            return
    if section.sampler == "file":
        space = ParameterSpace(section, study.directory)
        total = solver.simulations + solver.validation_simulations
        yield from raised("[parameters] ", lambda: space.draw(total, study.study.seed))
    if section.sampler == "sobol" and len(section.bounds) > SOBOL_NUMBERS:
        yield (
            f'[parameters] sampler = "sobol" with {len(section.bounds)} numbers: expected at most {SOBOL_NUMBERS}; '
            'set sampler = "halton" or sampler = "uniform"'
        )
        return
    if solver.redraws:
        yield from raised("[solver] ", lambda: make_spares(study))


def _entries(study: Study) -> Iterator[str]:
    """Entries of the case without a parameter, and parameters without an entry."""
    solver, names = study.solver, list(study.parameters.names)
    for name in solver.entries:
        if solver.adapter != "openfoam":
            yield f'[solver] entries.{name}: expected adapter = "openfoam" with [solver.entries]; remove the table'
        elif name not in names:
            yield f"[solver] entries.{name}: no such parameter; {nearest(name, names)}"
    for name in names if solver.adapter == "openfoam" else ():
        if name not in solver.entries:
            yield (
                f"[parameters] {name} reaches nothing: expected an entry for it; add under [solver.entries] "
                f'{name} = {{ file = "0/U", entry = "..." }} or remove the parameter'
            )


def _external_solver(study: Study) -> Iterator[str]:
    """The case or the command, as the solver adapters check it."""
    if is_python_solver(study):
        return
    settings = solver_description(study)
    runs_here = study.solver.concurrency > 0  # else its programs need not be installed here
    if study.solver.adapter == "openfoam":
        from penstock_solvers.openfoam import check_case

        # `_entries` finds entries without a parameter, and parameters without an entry.
        settings["parameters"] = [name for name in settings["parameters"] if name in settings["entries"]]
        settings["entries"] = {k: v for k, v in settings["entries"].items() if k in settings["parameters"]}
        problems = check_case(settings, programs=runs_here)
    else:
        from penstock_solvers.processes import check_command

        problems = check_command(settings, programs=runs_here)
        if study.solver.options:
            key = next(iter(study.solver.options))
            problems.append(f"[solver] options.{key}: expected no options beside command; write it into command")
    yield from (line if line.startswith("[") else f"[solver] {line}" for line in problems)


def _spec(study: Study, solver: Solver | None) -> SampleSpec | None:
    """The shape of a sample; None where the shape of a field is not known before a client announces it."""
    fields = []
    for name, section in study.fields.items():
        known = solver.fields.get(name) if solver is not None else None
        shape = known.shape if known is not None else section.shape
        components = known.components if known is not None else section.components
        if shape is None:
            return None
        fields.append(FieldSpec(name, components or 1, tuple(shape)))
    return SampleSpec(tuple(study.parameters.bounds), tuple(fields), study.samples.window, study.samples.bundle)


def _recording(study: Study) -> tuple[SampleSpec | None, list[str]]:
    """The shape of a sample in the study's recording, and the problems of the recording."""
    assert study.training.source is not None
    try:
        recording = Recording.open(study.training.source)
    except PenstockError as error:
        return None, [f"[training] source = {error}"]
    problems = check_recording(recording, study)
    return None if problems else recording.spec(study.samples.window, study.samples.bundle), problems


def _model(study: Study, spec: SampleSpec | None, here: bool) -> Iterator[str]:
    """Model, optimizer, scheduler and buffer sizes, tried on a sample of four points where its shape is not known."""
    window, bundle = study.samples.window, study.samples.bundle
    small = SampleSpec(tuple(study.parameters.bounds), (FieldSpec("small", 1, (4,)),), window, bundle)
    section, seed = study.model, study.study.seed
    model = make_model(ModelSection(name="mlp"), small, seed)  # to try the optimizer on if the study's is unusable
    try:
        if spec is not None:
            model = make_members(section, spec, study.training, seed)
        elif section.name == "mlp":
            model = make_members(section, small, study.training, seed)
        else:
            check_options(section, small)  # making the others needs shapes that are not known yet
    except PenstockError as error:
        yield str(error)
    yield from raised("[model] ", lambda: check_part("weights", model.state_dict()))
    try:
        optimizer = make_optimizer(study.training.optimizer, model.parameters())
        make_scheduler(study.training.scheduler, optimizer)
    except PenstockError as error:
        yield str(error)
    if study.training.source is None and (here or isinstance(study.buffer.capacity, int)):
        yield from _buffer(study, spec)


def _buffer(study: Study, spec: SampleSpec | None) -> Iterator[str]:
    buffer = study.buffer
    size = parse_bytes(buffer.capacity)
    if spec is None and isinstance(buffer.capacity, str):
        if isinstance(size, int) and size > available_memory():
            yield (
                f"[buffer] capacity = {buffer.capacity!r}: expected at most {available_memory() / GIB:.1f} GiB, "
                "what this machine has available; lower it"
            )
        return
    try:
        share, batch_size = buffer_share(study, spec), batch_share(study, rank=0)
        check_sizes(buffer.policy, share.capacity, share.watermark, batch_size, buffer.presentations_per_sample)
    except ValueError as error:
        yield f"[buffer] {error}"


def _training(study: Study, here: bool) -> Iterator[str]:
    training = study.training
    missing = list(raised("[training] device = ", lambda: resolve_device(training.device))) if here else []
    yield from missing
    one_gpu = study.study.engine == "ray" and training.source is None and not missing
    if one_gpu and re.fullmatch(r"cuda:0*[1-9]\d*", training.device):
        yield (
            f'[training] device = "{training.device}": expected "cuda", since with engine = "ray" each trainer rank sees '
            'one GPU alone; set device = "cuda" and choose the GPUs with CUDA_VISIBLE_DEVICES'
        )
    yield from raised("[training] loss = ", lambda: make_loss(training.loss))
    if isinstance(training.threads, int) and training.threads < 1:
        yield f'[training] threads = {training.threads}: expected at least 1 or "auto"; set threads = "auto"'
    if training.target_error is not None and study.solver.validation_simulations == 0:
        yield (
            f"[training] target_error = {training.target_error:g} with [solver] validation_simulations = 0: expected "
            "held-out simulations to measure the error on; set validation_simulations = 6"
        )
    if training.ranks > 1 and (study.study.engine == "inline" or training.source is not None):
        why = 'engine = "inline" trains' if study.study.engine == "inline" else "training from a recording runs"
        yield (
            f"[training] ranks = {training.ranks}: expected 1, since {why} in one process; "
            'set ranks = 1, or stream into engine = "ray"'
        )
    if training.batch_size < training.ranks:
        yield (
            f"[training] batch_size = {training.batch_size} with ranks = {training.ranks}: expected at least one "
            "sample of each batch for each rank; raise batch_size or lower ranks"
        )


def _server(study: Study) -> Iterator[str]:
    """An address that this machine cannot listen at."""
    if study.training.source is not None:
        return
    host = study.server.host
    with socket.socket() as probe:
        try:
            probe.bind((own_address(host), 0))
        except PenstockError as error:
            yield str(error)
        except OSError as error:
            yield (
                f'[server] host = "{host}": this machine cannot listen there ({error.strerror}): expected one of its '
                'own addresses; set host = "127.0.0.1" for workers on this machine alone'
            )
