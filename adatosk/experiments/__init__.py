"""What the paper's tables need: the grid of runs, their collected scores, statistics, verdicts, rivals, the report.

Nothing here plots, and nothing trains by itself; results are read from a profile's folder.
"""
