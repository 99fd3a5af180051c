"""Eq. 4 to 12 and attention as plain loops over Python floats, with nothing from the package: what fast code equals."""

import math


def mean_token(tokens, kept):
    width = len(tokens[0])
    chosen = [token for token, keep in zip(tokens, kept, strict=True) if keep]
    return [sum(token[d] for token in chosen) / len(chosen) for d in range(width)]


def distance(before, after, kind):
    if kind == "l1":
        return sum(abs(a - b) for a, b in zip(after, before, strict=True))
    if kind == "l2":
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(after, before, strict=True)))
    dot = sum(a * b for a, b in zip(after, before, strict=True))
    return 1 - dot / math.sqrt(sum(a * a for a in after)) / math.sqrt(sum(b * b for b in before))


def active(differences, k):
    ranked = sorted(range(len(differences)), key=lambda pair: -differences[pair])[:k]
    return [frame - 1 in ranked for frame in range(len(differences) + 1)]


def gate(frame, fc1, fc2, scale):
    hidden = [max(0.0, bias + sum(w * x for w, x in zip(row, frame, strict=True))) for row, bias in fc1]
    raw = [bias + sum(w * x for w, x in zip(row, hidden, strict=True)) for row, bias in fc2]
    total = sum(math.exp(value) for value in raw)
    return [scale * math.exp(r) / total * x + x for r, x in zip(raw, frame, strict=True)]


def agnostic(clip, kept, enhanced, axis):
    """S^agnostic of one clip, ``[t][s][d]``."""
    steps, count, width = len(clip), len(clip[0]), len(clip[0][0])
    result = [[[0.0] * width for _ in range(count)] for _ in range(steps)]
    for t in range(steps):
        for s in range(count):
            for d in range(width):
                if not kept[t][s]:
                    continue
                group = {
                    "clip": [(i, j, d) for i in range(steps) for j in range(count) if kept[i][j]],
                    "token": [(t, j, d) for j in range(count) if kept[t][j]],
                    "time": [(i, s, d) for i in range(steps) if kept[i][s]],
                    "channel": [(t, s, c) for c in range(width)],
                }[axis]
                total = sum(math.exp(clip[i][j][c] * enhanced[i][c]) for i, j, c in group)
                result[t][s][d] = math.exp(clip[t][s][d] * enhanced[t][d]) / total * len(group)
    return result


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def transfer(now, following, row, alive, temperature):
    """M of the next frame over the tokens ``alive``; the transition's softmax is formed as Eq. 9 writes it."""
    mass = sum(row[s] for s in alive)
    result = [0.0] * len(row)
    for j in alive:
        source = unit(now[j])
        powers = {
            i: math.exp(sum(a * b for a, b in zip(unit(following[i]), source, strict=True)) / temperature)
            for i in alive
        }
        total = sum(powers.values())
        for i in alive:
            result[i] += powers[i] / total * row[j] / mass
    return result


def accumulate(features, excluded, temperature):
    """M and kept of one clip from its projected features ``[t][s][f]``."""
    steps, count = len(features), len(features[0])
    alive = list(range(count))
    row = [1 / count] * count
    scores, kept = [row], [[True] * count]
    for t in range(steps - 1):
        ranking = row if t else transfer(features[0], features[1], row, alive, temperature)
        leaving = sorted(alive, key=lambda s: -ranking[s])[:excluded]
        alive = [s for s in alive if s not in leaving]
        row = transfer(features[t], features[t + 1], row, alive, temperature)
        scores.append(row)
        kept.append([s in alive for s in range(count)])
    return scores, kept


def semantic(clip, scores, kept, use, scaling="min_max"):
    """S^semantic of one clip, ``[t][s]``; by its mean, by each frame's bounds, or by the clip's."""
    value = {}
    for t, frame in enumerate(clip):
        for s, token in enumerate(frame):
            if kept[t][s]:
                attention = sum(abs(x) for x in token) if "A" in use else 1.0
                value[t, s] = attention * (1 - scores[t][s] if "M" in use else 1.0)
    mean = sum(value.values()) / len(value)
    mask = []
    for t in range(len(clip)):
        among = [x for (frame, _), x in value.items() if frame == t or scaling != "frame"]
        low, high = (0.0, mean) if scaling == "mean" else (min(among), max(among))
        mask.append([(value[t, s] - low) / (high - low) if (t, s) in value else 0.0 for s in range(len(clip[0]))])
    return mask


def attention(queries, keys, values):
    """Of one head, ``[token][d]``."""
    result = []
    for query in queries:
        scores = [sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(query)) for key in keys]
        highest = max(scores)
        weights = [math.exp(score - highest) for score in scores]
        total = sum(weights)
        channels = zip(*values, strict=True)
        result.append([sum(w * v for w, v in zip(weights, channel, strict=True)) / total for channel in channels])
    return result
