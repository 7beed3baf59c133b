"""Find the rotation axis: from opposing views, the seam of half a turn, and the sharpness of a slice."""
