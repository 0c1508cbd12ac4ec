"""Real images, brought to the network's pixel size."""
