"""The plan of a training: from images, device and time to network, batch, length and what to expect."""
