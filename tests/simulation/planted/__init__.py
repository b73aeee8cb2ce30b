"""Bugs that are planted into the product, to see that the simulation catches each of them."""
