"""A user's module with what a study may name by mistake."""

from torch import Tensor, nn


def function(prediction: Tensor, target: Tensor) -> Tensor:
    """A loss for each element: not a scalar."""
    return prediction - target


class NotAModule:
    """No torch.nn.Module."""


class WrongWidth(nn.Module):
    """Gives three values, whatever the fields are."""

    def __init__(self, spec: object) -> None:
        super().__init__()
        self.layer = nn.Linear(spec.n_inputs, 3)  # type: ignore[attr-defined]

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.layer(inputs)
        return out
