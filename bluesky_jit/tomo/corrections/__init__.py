"""Correct frames one by one: from raw counts to line integrals that hold true values."""
