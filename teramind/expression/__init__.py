"""From molecules, cells or published tiles to the expression raster that a network reads."""
