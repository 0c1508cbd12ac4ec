"""Trains on the pair of `training_pair`, in as many processes as torchrun starts; for tests."""

import json
import sys
from pathlib import Path

from training_pair import SETTINGS, blob_windows

from teramind.network import NetworkSpec
from teramind.training.parallel import team
from teramind.training.trainer import Trainer


def main() -> None:
    """Arguments: folder and, as JSON, spec, batch and settings that differ."""
    folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    spec = NetworkSpec.from_dict(given["spec"])
    with team(gpus=0) as processes:
        raster = folder / f"pair_{processes.rank}"
        windows = blob_windows(raster, spec, batch=given["batch"])
        settings = SETTINGS.model_copy(update=given["settings"])
        trainer = Trainer(spec, windows, settings, folder / "states", team=processes)
        trainer.run()
        (folder / f"losses_{processes.rank}.json").write_text(json.dumps(trainer.losses))


main()
