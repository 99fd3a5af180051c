"""Components of a training run: the optimiser, its schedule and one step, and the state that a run resumes from.

Nothing here decides what is trained or how its scores are used.
"""
