"""Small episodes that every format can store, and what a reader must give back for them."""

import numpy as np

LOSSY = 12  # grey levels that a codec may change these smooth frames by


def make_episode(k):
    """Episode `k`: smooth frames that tell episode and row, a constant goal, numbers, text."""
    rng = np.random.default_rng(k)
    rows = int(rng.integers(4, 12))
    ramp = np.linspace(0, 60, 32)[None, :, None] + np.linspace(0, 60, 32)[:, None, None]
    shade = (10 * np.arange(rows) + 5 * (k % 7))[:, None, None, None]
    action = rng.normal(size=(rows, 2)).astype(np.float32)
    action[-1] = np.nan
    return {
        "pixels": (ramp[None] + shade).repeat(3, axis=3).astype(np.uint8),
        "goal": np.full((rows, 32, 32, 3), 40 + k % 50, np.uint8),
        "action": action,
        "reward": np.r_[np.nan, rng.normal(size=rows - 1)].astype(np.float32),
        "step_idx": np.arange(rows),
        "seed": np.full(rows, 1000 + k),
        "policy": [f"policy {k % 3}"] * rows,
    }


def faults(found, k, lossless):
    """What differs between a stored episode and episode `k`."""
    expected = make_episode(k)
    wrong = sorted(set(expected) - set(found))
    for name, values in expected.items():
        if name in wrong:
            continue
        values, stored = np.asarray(values), np.asarray(found[name])
        stored = stored.reshape(values.shape) if stored.size == values.size else stored
        if stored.shape != values.shape:
            wrong.append(f"{name}: {stored.shape} instead of {values.shape}")
        elif values.dtype == np.uint8 and not lossless:
            if np.abs(stored.astype(int) - values).max() > LOSSY:
                wrong.append(f"{name}: other pixels")
        elif values.dtype.kind == "U":
            wrong += [f"{name}: other text"] if stored.astype(str).tolist() != values.tolist() else []
        elif not np.array_equal(stored, values, equal_nan=values.dtype.kind == "f"):
            wrong.append(f"{name}: other values")
    return wrong
