"""Files that appear whole, seeds, provenance and worker pools: what every room needs and no paper describes.

Nothing here knows of a model, a video or a table.
"""
