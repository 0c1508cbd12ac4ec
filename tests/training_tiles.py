"""Published training tiles in small: two mice, a network's images and expression by tile."""

import numpy as np
import zarr
from zarr.storage import ZipStore

NAMES = tuple("abcdefg")
PLANES = 6
SPAN = 512
NAME = "256_512_{}_{}_128_640_{}_{}"


def tile_name(column):
    x = 256 * column
    return NAME.format(x, x + 256, x - 128, x + 384)


def write_image(path, image):
    """Images (stain section, y, x) as the release stores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipStore(path, mode="w") as store:
        zarr.create_array(store, data=image, chunks=(5, 256, 256), zarr_format=2)


def write_pair(folder, mouse, column, points, counts, image=None):
    """A tile with molecules (y, x, section, gene), each on a white pixel of both stains."""
    y, x, section, gene = points.T
    if image is None:
        image = np.zeros((2 * PLANES, SPAN, SPAN), np.uint8)
        image[section, y, x] = image[PLANES + section, y, x] = 255
    write_image(folder / f"img_{mouse}" / f"{tile_name(column)}.zip", image)
    genes = folder / f"gene_{mouse}" / f"{tile_name(column)}.npz"
    genes.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        genes,
        coords=np.stack([y, x, section * len(NAMES) + gene]),
        data=counts.astype(np.uint16),
        shape=np.array([SPAN, SPAN, PLANES * len(NAMES)]),
        fill_value=np.array(0, np.uint16),
    )


def write_list(path, entries):
    """A list as the release has them: folders of another machine."""
    rows = [f"Data/MERFISH_50/gene_{mouse}/{tile_name(column)}.npz" for mouse, column in entries]
    path.write_text("\n".join(["number,pth", *(f"{k},{row}" for k, row in enumerate(rows))]))
    return path


def two_mice(folder):
    """Two mice with two tiles each, and a list of each mouse's tiles."""
    random = np.random.default_rng(0)
    for mouse in ("1", "2"):
        for column in (1, 2):
            limits = (SPAN, SPAN, PLANES, len(NAMES))
            points = np.stack([random.integers(0, limit, 4000) for limit in limits], 1)
            points = np.unique(points, axis=0)
            write_pair(folder, mouse, column, points, random.integers(1, 9, len(points)))
    write_list(folder / "1.csv", [("1", 1), ("1", 2)])
    write_list(folder / "2.csv", [("2", 1), ("2", 2)])
    return folder
