"""From files, archives, arrays, torchvision's sets and Hugging Face's to shards of images."""
