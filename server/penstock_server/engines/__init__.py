"""Who runs a study, from start to report.

Each engine is imported from its module, since each needs other packages: `inline`, `offline`, `record`, `ray`.
"""

from penstock_server.engines.engine import Engine, StudyStatus

__all__ = ["Engine", "StudyStatus"]
