"""What the paper's tables need: the grid of runs, their collected scores, statistics, verdicts, rivals, the document.

Nothing here trains, and nothing draws; results are read from a profile's folder.
"""
