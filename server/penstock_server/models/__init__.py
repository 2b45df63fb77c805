"""Reference surrogates, and how a study's model is found and made."""

from penstock_server.models.loader import MODELS, ModelError, make_model, model_class
from penstock_server.models.mlp import MLP

__all__ = ["MLP", "MODELS", "ModelError", "make_model", "model_class"]
