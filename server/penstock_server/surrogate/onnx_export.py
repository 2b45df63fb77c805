"""The surrogate as an ONNX model, which ONNX Runtime and others evaluate without torch.

The packages onnxscript and onnxruntime are the extra `onnx`. They are imported when a model is exported.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penstock_server.surrogate.agreement import Evaluate, ExportError

_OPERATOR = re.compile(r"\b(?:aten|prims|torchvision)[.:]+\w+")
_LARGEST = 2**31 - 1  # bytes of a protobuf message, which a model without a second file is


def onnx_program(surrogate: nn.Module, example: Sequence[Tensor], outputs: Sequence[str]) -> bytes:
    """Export a surrogate to ONNX.

    Args:
        surrogate: in raw units, on the CPU.
        example: inputs (batch, n_inputs) and, with windows, state (batch, state_width); any batch of at least 2.
        outputs: names of its outputs.

    Returns:
        The content of the file. Its inputs are named inputs and state; their first dimension, batch, is free.

    Raises:
        ExportError: an operator has no counterpart in ONNX, the model cannot be traced, or it is too large.
        ModuleNotFoundError: the extra onnx is not installed.
    """
    import onnxruntime  # noqa: F401 - before the time that an export takes
    import onnxscript  # noqa: F401

    batch = torch.export.Dim("batch")
    quiet = logging.getLogger("torch.onnx")
    before = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter, about its own workings
            program = torch.onnx.export(
                surrogate,
                tuple(example),
                input_names=["inputs", "state"][: len(example)],
                output_names=list(outputs),
                dynamic_shapes=tuple({0: batch} for _ in example),
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        content: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # torch fails in many ways on a user's forward
        raise ExportError(_reason(error)) from error
    finally:
        quiet.setLevel(before)
    if len(content) > _LARGEST:
        raise ExportError(
            f"the model has {len(content)} bytes: an ONNX file holds at most {_LARGEST}; export it as pt2"
        )
    return content


def onnx_evaluate(content: bytes) -> Evaluate:
    """Load an ONNX model into ONNX Runtime.

    Args:
        content: of the file.

    Returns:
        Maps inputs and, with windows, the state to the outputs.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def evaluate(arguments: Sequence[Tensor]) -> Sequence[Tensor]:
        fed = {name: tensor.numpy() for name, tensor in zip(names, arguments, strict=True)}
        return [torch.from_numpy(values) for values in session.run(None, fed)]

    return evaluate


def _reason(error: BaseException) -> str:
    """Name the operator that cannot be exported where the exporter's errors do, else their first line."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    missing = [text for text in texts if "No ONNX function found" in text or "No decompositions" in text]
    found = _OPERATOR.search("\n".join(missing))
    if found:
        name = found[0].replace("::", ".")
        return (
            f"the operator {name} of the model has no counterpart in ONNX (opset of torch {torch.__version__}): "
            "use other operators in the model's forward, or export it as pt2"
        )
    first_line = (texts[-1].strip().splitlines() or [type(error).__name__])[0]
    return f"torch.onnx cannot export the model for any batch size: {first_line}; export it as pt2"
