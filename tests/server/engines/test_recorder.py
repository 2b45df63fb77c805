"""The receiver of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from penstock_client.payloads import Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import Dtype, Header, Kind
from penstock_server.coordinator import make_plan
from penstock_server.engines.recorder import Recorder
from penstock_server.study import FieldSpec, SampleSpec, Schema


def test_what_arrives_after_the_file_is_complete_is_refused_and_not_written(heat_study: Any, tmp_path: Path) -> None:
    study = heat_study()
    recorder = Recorder(study, make_plan(study), tmp_path / "data.h5", incarnation=1, on_static=lambda _name: None)
    spec = SampleSpec(tuple(study.parameters.bounds), (FieldSpec("T", 1, (4,)),))
    recorder.configure(Schema(spec, {"T": 0}, {0: Dtype.FLOAT64}))
    assert recorder.writer is not None
    recorder.writer.finish(np.zeros(len(make_plan(study)), bool))
    recorder.complete = True
    piece = Header(Kind.PIECE, 1, 0, 1, count=4, dtype=Dtype.FLOAT64)
    ((_, frames),) = recorder.handle(b"peer", [piece.pack(), np.zeros(4).tobytes()], 0.0, "")
    assert Refuse.unpack(frames[1]).reason is Reason.STUDY_OVER
    assert recorder.metrics.refusals() == {"study_over": 1}
