"""Which genes attend to which: matrices per patch, maps per pathway, means per section and region.

The gene branch's attention needs no image and no sampling step, so it is computed from the counts
alone. Names are imported where they are used: rooms below differ in what they need installed.
"""
