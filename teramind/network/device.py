"""On what a network runs, in words, and whether that multiplies in bfloat16."""

from __future__ import annotations

import torch

from teramind.errors import UserError


def where(device: str, *, gpus: int, key: str) -> str:
    """Say on what a network runs.

    Args:
        device: "cpu" or "cuda".
        gpus: how many were asked for.
        key: of the config, that asked.
    """
    if device == "cuda":
        return f"on {torch.cuda.get_device_name()}"
    words, seen = f"on the CPU, {torch.get_num_threads()} threads", torch.cuda.device_count()
    return words + f"; {key} asks for {gpus} GPU{'s' * (gpus > 1)}, torch sees {seen}" * bool(gpus)


def require_bfloat16(device: str, *, key: str) -> None:
    """Refuse bfloat16 on a CPU without it.

    Args:
        device: "cpu" or "cuda".
        key: of the config, that asked.

    Raises:
        UserError: when it would be slower than float32.
    """
    if device == "cpu" and not has_bfloat16():
        raise UserError(
            f"{key}: bfloat16, but this CPU has no instructions for it and would be many times "
            "slower than with float32; use float32"
        )


def has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 by instructions of its own."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
