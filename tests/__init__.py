"""Tests of cropkit: one file a question."""
