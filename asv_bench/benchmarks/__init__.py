"""Benchmarks of cropkit, by question; run by asv from the folder above."""
