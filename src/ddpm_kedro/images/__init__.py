"""Images: where they come from, how they are kept, how they are augmented and shown."""
