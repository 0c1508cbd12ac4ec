"""Where the files lie in a results folder that several rooms name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ResultFiles:
    """Files and folders of the results folder `root`; the rules name the same ones."""

    root: Path

    @property
    def provenance(self) -> Path:
        """The record of settings, inputs and programs."""
        return self.root / "provenance.json"

    @property
    def raster(self) -> Path:
        """The expression raster."""
        return self.root / "expression" / "raster.zarr"

    @property
    def images(self) -> Path:
        """Real images at the network's pixel size."""
        return self.root / "reference" / "images.zarr"

    @property
    def split(self) -> Path:
        """The parts of the plane that train, validate and test."""
        return self.root / "reference" / "split.json"

    @property
    def training(self) -> Path:
        """Folder with what is looked at while training, and its checkpoint."""
        return self.root / "train"

    @property
    def training_states(self) -> Path:
        """Folder with what a killed training goes on from."""
        return self.root / "work" / "train"

    @property
    def trained(self) -> Path:
        """The network that training leaves."""
        return self.training / "checkpoint.safetensors"

    @property
    def converted(self) -> Path:
        """A published checkpoint as it is read here."""
        return self.root / "checkpoint.safetensors"

    @property
    def volume(self) -> Path:
        """The generated volume."""
        return self.root / "volume" / "volume.zarr"
