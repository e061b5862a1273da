"""Numbers of the items of a collection, opened for fits."""
