"""Facial action units: what each moves, and which of them make an expression.

Names and effects follow the Facial Action Coding System (Ekman & Friesen, 1978).
"""

UNITS = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    15: "lip corner depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
}
UNIT_NAMES = tuple(f"AU{unit}" for unit in UNITS)
# Left and right are the viewer's.
REGIONS = ("brows", "eyes", "nose", "left_cheek", "right_cheek", "mouth", "chin")
_CHEEKS = ("left_cheek", "right_cheek")
# Where each unit changes the drawing; the tests measure it.
AU_REGIONS: dict[int, tuple[str, ...]] = {
    1: ("brows",),
    2: ("brows",),
    4: ("brows",),
    5: ("eyes",),
    6: ("eyes", *_CHEEKS),
    7: ("eyes",),
    9: ("nose", "brows"),
    10: ("mouth", *_CHEEKS),
    12: ("mouth", *_CHEEKS),
    15: ("mouth",),
    17: ("mouth", "chin"),
    20: ("mouth",),
    23: ("mouth",),
    25: ("mouth",),
    26: ("mouth", "chin"),
}

# Expression -> action units and their weights. The last four are MAFW's; they lack agreed prototypes, so are blends.
CLASS_UNITS: dict[str, dict[int, float]] = {
    "happy": {6: 1, 12: 1, 25: 1},
    "sad": {1: 1, 4: 1, 15: 1, 17: 1},
    "neutral": {},
    "angry": {4: 1, 5: 1, 7: 1, 23: 1},
    "surprise": {1: 1, 2: 1, 5: 1, 26: 1},
    "disgust": {9: 1, 10: 1, 15: 1},
    "fear": {1: 1, 2: 1, 4: 1, 5: 1, 20: 1, 25: 1},
    "contempt": {7: 0.8, 10: 0.4, 12: 0.6, 23: 0.5},
    "anxiety": {1: 0.8, 4: 0.8, 7: 0.6, 20: 0.8},
    "helplessness": {1: 1, 2: 0.6, 15: 0.8, 25: 0.8},
    "disappointment": {4: 0.5, 7: 0.5, 15: 0.9, 17: 0.9, 23: 0.4},
}
CLASSES_7 = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
CLASSES_11 = tuple(CLASS_UNITS)


def moving_regions(label: str) -> tuple[str, ...]:
    """Face regions that the expression moves, in the order of ``REGIONS``; none for neutral."""
    moved = {region for unit in CLASS_UNITS[label] for region in AU_REGIONS[unit]}
    return tuple(region for region in REGIONS if region in moved)
