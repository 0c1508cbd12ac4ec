"""The engine: from noise to voxels, slab by slab."""
