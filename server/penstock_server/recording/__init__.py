"""Recordings: time steps in an HDF5 file, written from a stream, checked, and read as training samples."""

from penstock_server.recording.check import check_recording
from penstock_server.recording.recording import Recording, RecordingReader, RecordingWriter
from penstock_server.recording.source import FileSource
from penstock_server.recording.stats import RecordingStats

__all__ = ["FileSource", "Recording", "RecordingReader", "RecordingStats", "RecordingWriter", "check_recording"]
