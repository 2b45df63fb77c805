"""Reference surrogates, and how the model of a study is found and made."""

from penstock_server.training.models.fno import FNO
from penstock_server.training.models.loader import MODELS, ModelError, check_options, make_model, model_class
from penstock_server.training.models.mlp import MLP
from penstock_server.training.models.mp_pde import MPPDE
from penstock_server.training.models.unet import UNet

__all__ = ["FNO", "MLP", "MODELS", "MPPDE", "ModelError", "UNet", "check_options", "make_model", "model_class"]
