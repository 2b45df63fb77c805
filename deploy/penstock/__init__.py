"""The command line, the study file and the launcher of Penstock. `penstock --help` is its public face."""

__all__: list[str] = []
