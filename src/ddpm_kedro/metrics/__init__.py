"""How good samples are: features, figures, nearest training images."""
