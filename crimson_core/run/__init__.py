"""Report pairs in bulk: scoring, the store, tables of files, several processes and machines."""
