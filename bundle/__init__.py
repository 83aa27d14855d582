"""A folder with all that a machine without a network needs: wheels, this package, its sources and weights."""
