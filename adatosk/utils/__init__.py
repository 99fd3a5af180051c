"""Atomic files, seeds, provenance and worker pools: infrastructure that the whole package uses.

Nothing here depends on a model, a video or an experiment.
"""
