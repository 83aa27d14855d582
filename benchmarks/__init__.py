"""Benchmarks: agreement with radiologists (RadPref), ranking cases (RadJudge), and speed."""
