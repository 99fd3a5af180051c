"""What a training run is made of: the optimiser, its schedule and one step, and the state a run resumes from.

Nothing here decides what is trained or what becomes of its scores.
"""
