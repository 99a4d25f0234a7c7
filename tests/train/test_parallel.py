import jax
import numpy as np

from boneage_jax.train import parallel


def test_a_batch_is_split_over_the_devices_with_its_further_inputs():
    devices = jax.local_device_count()
    inputs = {"weight": np.arange(2 * devices), "points": np.zeros((2 * devices, 3, 3, 1))}
    found = parallel.split({"image": np.arange(2 * devices * 4).reshape(2 * devices, 2, 2, 1), "inputs": inputs})
    assert found["image"].shape == (devices, 2, 2, 2, 1)
    assert found["inputs"]["points"].shape == (devices, 2, 3, 3, 1)
    np.testing.assert_array_equal(found["inputs"]["weight"].ravel(), inputs["weight"])
    assert parallel.split({"inputs": {}, "sex": np.zeros(devices)})["inputs"] == {}
