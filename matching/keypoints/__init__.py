"""Few-shot keypoints: parts marked in a few images, found in others."""
