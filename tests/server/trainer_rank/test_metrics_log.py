"""TensorBoard's files on a disk that is full."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from penstock_server.trainer_rank.clock import TrainingClock
from penstock_server.trainer_rank.metrics_log import MetricsLog
from penstock_server.trainer_rank.status import SourceTotals
from waiting import wait_for


def test_a_full_disk_is_told_of_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    log = MetricsLog(tmp_path, append=False)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    with caplog.at_level(logging.WARNING):
        totals = SourceTotals(*(0 for _ in SourceTotals.__dataclass_fields__))
        for batches in range(1, 4):
            log.training(TrainingClock(), batches, 0.5, 1e-3, totals)
        wait_for(lambda: "tensorboard/ cannot be written" in caplog.text)
        log.close()
    assert printed == []
    assert any("tensorboard/ ends at" in text for text in log.warnings())
    assert threading.excepthook == printed.append
