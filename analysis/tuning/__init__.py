"""The law of the best learning rate and batch, from runs that differ in them."""
