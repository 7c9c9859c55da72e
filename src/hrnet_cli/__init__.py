"""HRNet pose estimation: `hrnet` on the command line, `PoseEstimator` in Python."""

__version__ = "0.1.0"
