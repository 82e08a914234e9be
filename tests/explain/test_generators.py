"""The generators against published known answers, and against torch itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from publish.explain import generators

# Random123, tests/kat_vectors, philox4x32 10
VECTORS = [
    ("00000000 00000000", "00000000 00000000 00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff", "ffffffff ffffffff ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("a4093822 299f31d0", "243f6a88 85a308d3 13198a2e 03707344", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
ON_CUDA = """-0.92466259 -0.42534415 -2.6438457 0.14518388 -0.12086647 -0.57972564 -0.62285122 -0.32838709 -1.07454231
    -0.36314407 -1.67105067 2.26550497"""  # torch.manual_seed(0); torch.randn(12, device="cuda")


def words(text: str) -> tuple[np.ndarray, ...]:
    return tuple(np.array([int(word, 16)], np.uint64) for word in text.split())


@pytest.mark.parametrize(("key", "counter", "expected"), VECTORS)
def test_philox_gives_the_published_words(key: str, counter: str, expected: str) -> None:
    found = generators.philox(words(key), words(counter))  # type: ignore[arg-type]
    assert [int(word[0]) for word in found] == [int(word, 16) for word in expected.split()]


def test_normals_are_those_of_a_gpu() -> None:
    expected = np.array([float(number) for number in ON_CUDA.split()])
    drawn = np.empty(12, np.float32)
    for start, normals in generators.standard_normals(0, 0, 12, 221_184):
        drawn[start : start + normals.size] = normals
    assert np.abs(drawn - expected).max() < 7e-7  # the angle, up to 2 pi, is rounded to float32


@pytest.mark.parametrize(
    ("resident", "sizes"),
    [(163_840, (176, 488, 1048)), (221_184, (160, 384, 784)), (270_336, (144, 288, 720)), (129_024, (200, 616, 1368))],
)
def test_offsets_after_a_pythia_are_those_of_the_table(resident: int, sizes: tuple[int, ...]) -> None:
    models = [(6, 128), (6, 512), (12, 768)]
    for (layers, width), expected in zip(models, sizes, strict=True):
        tensors = [50304 * width, *[3 * width**2, width**2, 4 * width**2, 4 * width**2] * layers, 50304 * width]
        assert sum(generators.advance(elements, resident) for elements in tensors) == expected


@pytest.mark.parametrize("elements", [1, 255, 256, 257, 4 * 512, 4 * 512 + 1, 12_345, 70_001])
def test_every_element_is_drawn_once(elements: int) -> None:
    seen = np.zeros(elements, int)
    for start, normals in generators.standard_normals(7, 4, elements, 512):
        seen[start : start + normals.size] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("position", [0, 5000, 14_057_472])
def test_cpu_heads_are_what_torch_draws(position: int) -> None:
    seeds = [0, 1, 1234, 3952, 2**32 - 1, 2**40 + 7]
    expected = np.empty((len(seeds), 8), np.float32)
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        torch.rand(position, generator=generator)
        expected[row] = torch.empty(64).normal_(generator=generator)[:8].numpy()
    found = generators.cpu_heads(np.array(seeds, np.uint64), position, 8)
    assert np.abs(found - expected).max() < 2e-6
