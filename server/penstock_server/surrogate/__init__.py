"""The exported model: `Surrogate` evaluates it and needs only torch and numpy.

`penstock_server.surrogate.export` writes it; that needs the whole server and is imported from its module.
"""

from penstock_server.surrogate.predict import PredictError, Prediction, Surrogate

__all__ = ["PredictError", "Prediction", "Surrogate"]
