"""The training server, one folder a room, along the path of the data: network, ingest, buffer, training.

Nothing is imported here. A model imports `SampleSpec` from `penstock_server.study`, a script that asks a trained
surrogate imports `Surrogate` from `penstock_server.surrogate`, which needs torch and numpy alone.
"""

__all__: list[str] = []
