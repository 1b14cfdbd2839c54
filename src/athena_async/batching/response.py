"""How an endpoint's latency and throughput respond to the setting, as far as trials have shown."""

from __future__ import annotations

import math
from typing import Final

from athena_async.batching.moves import Setting

_FLAT: Final = 0.3
"""Elasticity below which reducing hardly shortens latency."""
_STEEPNESS_FLOOR: Final = 0.25
_ABOUT_EQUAL: Final = 0.2
"""Difference of two elasticities that is no reason to reduce the one that costs throughput."""
_OPPOSITE: Final = -0.5
"""Elasticity that no noise explains: less took longer, or more took less time."""


class Elasticity:
    """By which power of a setting a quantity grows: 0 where it stands still, 1 where it grows in proportion.

    It is learnt from comparisons made within one trial, so a server whose cost drifts between trials does not
    bend it, as it bends a least-squares line through samples of different times.
    """

    __slots__ = ("_most", "value")

    def __init__(self, value: float, most: float) -> None:
        self.value = value
        self._most = most

    def __repr__(self) -> str:
        return f"Elasticity({self.value:.2f})"

    def learn(self, setting_ratio: float, quantity_ratio: float, weight: float) -> None:
        """The setting changed by ``setting_ratio`` and the quantity with it by ``quantity_ratio``.

        Nothing is learnt where the quantity clearly went the other way: then the server changed meanwhile.
        """
        seen = math.log(quantity_ratio) / math.log(setting_ratio)
        if seen < _OPPOSITE:
            return
        self.value += weight * (min(self._most, max(0.0, seen)) - self.value)


class Response:
    """Latency as a product of powers: images a batch to one, batches in flight to another.

    The power of images is near 0 where a batch costs the same whatever it holds, 1 where cost is per image, and
    above beyond a knee; that of batches in flight is near 0 while the server has workers free, and 1 once it queues.
    Both are local: they are learnt anew with each comparison of neighbours.
    """

    __slots__ = ("by_images", "by_in_flight")

    def __init__(self) -> None:
        self.by_images = Elasticity(0.6, most=2.0)
        self.by_in_flight = Elasticity(1.0, most=1.0)

    def __repr__(self) -> str:
        return f"Response(images={self.by_images.value:.2f}, in_flight={self.by_in_flight.value:.2f})"

    @property
    def is_flat_in_images(self) -> bool:
        """Whether larger batches hardly take longer."""
        return self.by_images.value < _FLAT

    def learn(self, old: Setting, old_rate: float, new: Setting, new_rate: float, weight: float) -> None:
        """Takes from the throughputs of two settings that differ in one part how latency goes with that part."""
        if old_rate <= 0.0 or new_rate <= 0.0:
            return
        if old.in_flight == new.in_flight and old.images != new.images:
            ratio = new.images / old.images
            self.by_images.learn(ratio, ratio * old_rate / new_rate, weight)
        elif old.images == new.images and old.in_flight != new.in_flight:
            ratio = new.in_flight / old.in_flight
            self.by_in_flight.learn(ratio, ratio * old_rate / new_rate, weight)

    def growth(self, old: Setting, new: Setting) -> float:
        """Latency to expect at ``new``, as a multiple of that at ``old``."""
        by_images = math.pow(new.images / old.images, self.by_images.value)
        return by_images * math.pow(new.in_flight / old.in_flight, self.by_in_flight.value)

    def images_for(self, growth: float) -> float:
        """By which factor images may grow for latency to grow by ``growth``."""
        return math.pow(growth, 1.0 / max(0.1, self.by_images.value))

    def lone_s(self, setting: Setting, latency_s: float) -> float:
        """Latency to expect of a small batch that is alone, from that at ``setting``."""
        fixed = max(0.0, 1.0 - self.by_images.value)
        return latency_s * fixed * math.pow(setting.in_flight, -self.by_in_flight.value)

    def reduced(self, setting: Setting, scale: float) -> Setting:
        """The setting whose latency is ``scale`` times that of ``setting``, at the least cost in throughput: reduced
        is what latency grows with most steeply, in doubt batches in flight, by at most half and at least 1; never
        below 1."""
        images, in_flight = setting
        steep_in_flight = self.by_in_flight.value >= self.by_images.value - _ABOUT_EQUAL or self.is_flat_in_images
        if in_flight > 1 and (steep_in_flight or images == 1):
            wanted = in_flight * math.pow(scale, 1.0 / max(_STEEPNESS_FLOOR, self.by_in_flight.value))
            return Setting(images, max(1, in_flight // 2, min(in_flight - 1, round(wanted))))
        # A steepness above 1 is that of a knee, and no guide to what is below it.
        wanted = images * math.pow(scale, 1.0 / min(1.0, max(_STEEPNESS_FLOOR, self.by_images.value)))
        return Setting(max(1, images // 2, min(images - 1, int(wanted))), in_flight)
