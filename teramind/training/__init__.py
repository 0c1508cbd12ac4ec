"""Learning a checkpoint: windows of paired images and expression, and the loop over them."""
