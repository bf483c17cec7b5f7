"""Training: the autoencoder, then the transformer and its heads, then the bundle that ships."""
