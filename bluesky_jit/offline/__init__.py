"""Whole volumes of stored scans: the batch door to the same rooms as a live run."""
