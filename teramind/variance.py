"""How much of the image is left at each training timestep (DDPM, arXiv 2006.11239)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teramind.schedule import TRAINING_STEPS


def alphas_cumprod() -> NDArray[np.float64]:
    """Alpha-bar of every training timestep, (1000,), for linear betas from 1e-4 to 0.02."""
    betas = np.linspace(1e-4, 0.02, TRAINING_STEPS, dtype=np.float64)
    return np.cumprod(1 - betas).astype(np.float64)
