"""Scoring many report pairs: the scorer, the store, input files, and several processes and machines."""
