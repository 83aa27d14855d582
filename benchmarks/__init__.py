"""Benchmarks of judges: agreement with radiologists, ranking cases, extraction, known changes of reports, and speed."""
