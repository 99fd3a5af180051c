"""Operations counted, and seconds and memory measured: of models, of the loader that feeds them, and of decoding.

Nothing here knows of scores, tables of runs or the paper's claims about accuracy.
"""
