"""The trained model that a user takes away: `Surrogate` asks it, with torch and numpy alone.

Writing one (`penstock_server.surrogate.export`) needs the whole server and is imported from its module.
"""

from penstock_server.surrogate.predict import Surrogate

__all__ = ["Surrogate"]
