"""Episodes of real environments: collecting, storing (Minari's format), encoding to latents, drawing clips."""
