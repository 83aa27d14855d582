"""Builds a folder with everything for a machine without a network: wheels, this package, its sources and weights."""
