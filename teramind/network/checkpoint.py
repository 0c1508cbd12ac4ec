"""Reading and writing weights: our safetensors, and the published checkpoints.

Untrusted files cannot run code: pickles are read with `weights_only=True`, the rest is
safetensors. Every size is inferred from the weights and checked against what else the file says.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from teramind.errors import UserError, foreign
from teramind.files import atomic_path
from teramind.geometry import BIN
from teramind.network.published import published_folder, published_modules
from teramind.network.spec import METADATA_KEY, SECTION_KERNELS, NetworkSpec, read_spec
from teramind.network.unet import Network

_BEGINNINGS = (b"PK", b"\x80")
"""First bytes of what torch saves: a zip, or a pickle."""


def load_network(path: str | Path, *, panel: tuple[str, ...] = ()) -> Network:
    """Load a network for inference from any of its forms.

    Args:
        path: our safetensors, a published `last.ckpt`, the folder that holds it, or a safetensors
            with the published names.
        panel: gene names in the network's order for a file that does not carry them.

    Returns:
        The network in evaluation mode, float32, on the CPU; `network.spec` says what it is.

    Raises:
        UserError: one line naming what is wrong with the file.
    """
    path = Path(path)
    file = path / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"checkpoint {file}: no such file")
    own = read_spec(file) if file.suffix == ".safetensors" else None
    tensors = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    if own is None:
        spec, tensors = _from_published(file, tensors)
    else:
        spec = own
    if panel and not spec.panel:
        spec = dataclasses.replace(spec, panel=tuple(panel[: spec.genes]))
    return _fill(spec, tensors, file)


def save_network(
    network: Network,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    exact: Collection[str] = (),
) -> None:
    """Write weights and `network.spec` as one safetensors file, atomically.

    Args:
        network: what to write.
        path: the file to make or replace.
        dtype: how weights are stored; float16 halves the file. Loading gives float32 again.
        exact: names of weights that are stored as they are.

    Raises:
        UserError: when a weight is not finite in `dtype`.
    """
    tensors = {
        key: value.detach().to("cpu", value.dtype if key in exact else dtype).contiguous()
        for key, value in network.state_dict().items()
    }
    lost = next((key for key, value in tensors.items() if not value.isfinite().all()), None)
    if lost is not None:
        kind = str(dtype).removeprefix("torch.")
        raise UserError(f"checkpoint {path}: {lost} holds values that {kind} cannot store")
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, {METADATA_KEY: json.dumps(network.spec.to_dict())}))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    where = f"checkpoint {path}: truncated or not a safetensors file"
    with foreign(where), safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no iterator


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        with path.open("rb") as file:
            if not file.read(2).startswith(_BEGINNINGS):
                raise UserError(
                    f"checkpoint {path}: no checkpoint: a .safetensors, a last.ckpt or its folder "
                    "expected"
                ) from None
        raise UserError(
            f"checkpoint {path}: not a plain tensor file, reading it would need to run its pickle "
            "code; ask for safetensors"
        ) from None
    except Exception as error:  # torch raises RuntimeError, EOFError, OSError... on broken zips
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {path}: truncated or not a checkpoint ({line})") from None
    tensors = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise UserError(f"checkpoint {path}: holds no `state_dict` of tensors")
    for key, value in tensors.items():
        if value.is_nested or value.layout is not torch.strided:
            raise UserError(f"checkpoint {path}: {key} is no plain tensor")
    return {
        key.removeprefix("model."): value
        for key, value in tensors.items()
        if not key.startswith("ema_model.")
    }


def _from_published(
    path: Path, tensors: dict[str, Tensor]
) -> tuple[NetworkSpec, dict[str, Tensor]]:
    """Infer the architecture and give the tensors our names."""
    spec = _infer_spec(path, tensors)
    ours = {theirs: name for name, theirs in published_modules(spec).items()}
    renamed = {}
    for key, value in tensors.items():
        module, _, parameter = key.rpartition(".")
        is_norm = module in ours and "norm" in ours[module]
        renamed[f"{ours.get(module, module)}.{parameter}"] = value.flatten() if is_norm else value
    return spec, renamed


def _infer_spec(path: Path, tensors: dict[str, Tensor]) -> NetworkSpec:
    """Sizes from the published weights' shapes, cross-checked with the folder's name."""

    def shape(key: str, dimensions: int) -> torch.Size:
        if key not in tensors or tensors[key].dim() != dimensions:
            raise UserError(f"checkpoint {path}: not a Tera-MIND network (no fitting `{key}`)")
        return tensors[key].shape

    base = shape("input_blocks.0.0.weight", 5)[0]
    embed = shape("time_embed.time_embed.0.weight", 2)[0]
    reduce = shape("rna_blocks.0.0.down_z.weight", 5)
    token = shape("rna_blocks.0.0.attn.q.weight", 2)[0]
    stains = shape("out.2.weight", 5)[0]
    sections = {depth: s for s, depth in SECTION_KERNELS.items()}.get(reduce[2])
    bins = math.isqrt(token // sections) if sections else 0
    if not sections or bins * bins * sections != token or stains not in (1, 2):
        raise UserError(
            f"checkpoint {path}: sizes fit no Tera-MIND network (gene token {token}, section "
            f"kernel {reduce[2]}, {stains} stains)"
        )
    spec = NetworkSpec(
        patch=bins * BIN,
        sections=sections,
        stains=("DAPI", "PolyT") if stains == 2 else ("stain",),
        genes=reduce[0],
        base=base,
        embed=embed,
    )
    return _check_folder(path, spec)


def _check_folder(path: Path, spec: NetworkSpec) -> NetworkSpec:
    """Compare with the name of the folder; take the single stain's name from it."""
    folder = published_folder(path.absolute().parent.name)
    if not folder:
        return spec
    found = (spec.patch, spec.genes, len(spec.stains), spec.sections)
    named = (folder.patch, folder.genes, len(folder.stains), folder.sections)
    if found != named:
        labels = ("patch", "genes", "stains", "sections")
        parts = [
            f"{label} {b} in the name, {a} in the weights"
            for label, a, b in zip(labels, found, named, strict=True)
            if a != b
        ]
        raise UserError(
            f"checkpoint {path}: folder name contradicts the weights: {'; '.join(parts)}"
        )
    return dataclasses.replace(spec, stains=folder.stains)


def _fault(value: Tensor) -> str | None:
    """What makes a tensor of the right shape no weights; values it only claims are not read."""
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"is {str(value.dtype).removeprefix('torch.')}, should be floating-point numbers"
    if value.layout is not torch.strided or value.device.type != "cpu":
        return "is no plain tensor"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "claims more values than the file holds"
    return None if bool(torch.isfinite(value).all()) else "holds NaN or infinity"


def _fill(spec: NetworkSpec, tensors: dict[str, Tensor], path: Path) -> Network:
    """Check every tensor's name, shape and values, then build the network around them."""
    with torch.device("meta"):
        network = Network(spec)
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    problems = [f"{k} is missing" for k in wanted if k not in found]
    problems += [f"{k} is not part of the network" for k in found if k not in wanted]
    problems += [
        f"{k} is {found[k]}, should be {wanted[k]}"
        for k in wanted
        if k in found and found[k] != wanted[k]
    ]
    problems = problems or [f"{k} {fault}" for k, v in tensors.items() if (fault := _fault(v))]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(f"checkpoint {path}: {problems[0]}{more}")
    # Copies, because views into the file are not aligned in memory and so round otherwise.
    network.load_state_dict(
        {k: v.to(torch.float32, copy=True) for k, v in tensors.items()}, assign=True
    )
    return network.requires_grad_(False).eval()
