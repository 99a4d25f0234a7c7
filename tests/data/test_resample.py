"""Resampling of radiographs to the network's size."""

import numpy as np

from boneage_jax.data.resample import cut

WHOLE = (0, 0, 400, 400)


def test_windows_are_cut_with_subpixel_accuracy():
    ramp = np.tile(np.arange(400, dtype=np.uint16) * 100, (400, 1))
    shown = cut(ramp, (40.3, 50.0, 240.3, 250.0), 50, WHOLE, 0.0, 0)
    # Output pixel i covers 4 pixels from 40.3 + 4 i; a pixel's intensity is that of its centre.
    np.testing.assert_allclose(shown[25], 100 * (40.3 + 4 * np.arange(50) + 2 - 0.5), atol=0.5)
    np.testing.assert_allclose(cut(ramp, (-100.0, -100.0, 100.0, 100.0), 50, WHOLE, 7.0, 0)[:20, :20], 7.0)
