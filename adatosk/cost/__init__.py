"""Cost: counts of operations, and measured time and memory, of models, of the data loader, and of decoding.

Nothing here depends on scores, tables of runs or the paper's claims about accuracy.
"""
