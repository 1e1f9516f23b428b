"""Keypoints in files: DeepLabCut's and Lightning Pose's CSV, COCO keypoints, and a CSV with a line for each point.

Each format is a module with its reader, its writer, and its convention of coordinates as constants. To add one, add a module and its layout,
and name them in `reading.py` and `writing.py`.
"""
