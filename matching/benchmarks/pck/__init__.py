"""The share of correct keypoints, with everything that decides the number."""
