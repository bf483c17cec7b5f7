"""The networks of a world: pure functions of tensors, stored in diffusers' layout."""
