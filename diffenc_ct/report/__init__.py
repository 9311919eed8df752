"""Figures of runs and samples."""
