"""Reference surrogates, and how a study's model is found and made."""

from penstock_server.models.fno import FNO
from penstock_server.models.loader import MODELS, ModelError, check_options, make_model, model_class
from penstock_server.models.mlp import MLP
from penstock_server.models.mp_pde import MPPDE
from penstock_server.models.unet import UNet

__all__ = ["FNO", "MLP", "MODELS", "MPPDE", "ModelError", "UNet", "check_options", "make_model", "model_class"]
