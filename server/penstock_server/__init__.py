"""The training server: coordinator, ingest, reservoir, trainer.

Nothing is imported here, so that `penstock_server.predict` needs torch and numpy alone; what a model or a script of one's own uses
is imported from its module: `penstock_server.schema` (SampleSpec, FieldSpec), `penstock_server.predict` (Surrogate).
"""

__all__: list[str] = []
