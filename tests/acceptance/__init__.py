"""The product as its users have it. A package, so that what its tests share ends with them."""
