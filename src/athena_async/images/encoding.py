"""What the ``auto`` encoding sends now: raw pixels while the link keeps up, lossless WebP when it does not.

What is observed is how long batches are under way while prepared images wait for room behind them. While they wait,
bytes over time is the rate of the link, or of a service that is slower than it; while none do, nothing is known about
the link but that it carries what is sent. The two look alike from here, since gRPC takes megabytes before it lets a
write wait. So the policy goes to WebP on evidence of waiting, checks once that fewer bytes brought more images (from a
slow service they do not, and raw stays for long then), and comes back when the link would carry the present images raw,
or, where waits are gone for long, to try.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from athena_async.config import RAW_FRAME_BYTES

Choice = Literal["none", "webp"]

WINDOW_S = 2.0
"""Time constant of the averages: what was observed so long ago counts 1/e."""
WAIT_S = 0.02
"""Shorter waits are copying and scheduling, not the network."""
WAITS_TO_SWITCH = 2
WAITED_TO_SWITCH_S = 0.4
WAITING_FRACTION = 0.5
"""Images waited for so much of the time: the link, or the service, is the limit."""
IDLE_FRACTION = 0.2
"""Images waited for no more of the time: the limit is elsewhere."""
GAIN = 1.2
"""WebP must promise so many times the images of raw to be worth its processor time."""
TRIAL_S = 4.0
"""After so long WebP must have brought half of the gain that it promised."""
MARGIN = 1.3
"""Raw must fit into the link so many times before the policy returns to it."""
DWELL_S = 3.0
PROBE_S = 5.0
LONGEST_PROBE_S = 300.0
REFUSAL_S = 30.0
"""After WebP did not help, raw stays for so long, doubled each time."""

_ENCODE_S = 0.0045
_PREPARE_S = 0.003
_WEBP_RATIO = 0.5
_SMOOTHING = 0.05


class Snapshot(NamedTuple):
    """What the policy knows, for stats.

    Attributes:
        encoding: the choice.
        reason: why it was made.
        waiting_fraction: part of the recent time for which images waited behind a batch, 0 to 1.
        link_bytes_per_s: the link's rate when it was last the limit; None while it never was.
    """

    encoding: Choice
    reason: str
    waiting_fraction: float
    link_bytes_per_s: float | None


class _Meter:
    """Exponentially decayed bytes and waiting time since a start.

    Waits for several batches at once count once. A wait is spread over the time that it took, so that one
    of ten seconds does not weigh as ten seconds of now.
    """

    __slots__ = ("_busy_s", "_bytes", "_covered_until", "_last", "_start", "waited_s", "waits")

    def __init__(self, now: float) -> None:
        self._start = self._last = self._covered_until = now
        self._bytes = 0.0
        self._busy_s = 0.0
        self.waits = 0
        self.waited_s = 0.0

    def add(self, size_bytes: int, waited_s: float, now: float) -> None:
        decay = math.exp(-max(0.0, now - self._last) / WINDOW_S)
        inside_s = min(waited_s, now - self._start)
        inside_bytes = size_bytes * inside_s / waited_s if waited_s else size_bytes
        self._last = max(now, self._last)
        self._bytes = self._bytes * decay + inside_bytes * _spread(inside_s)
        self._busy_s *= decay
        if waited_s >= WAIT_S:
            new_s = max(0.0, now - max(now - inside_s, self._covered_until))
            self._busy_s += new_s * _spread(new_s)
            self._covered_until = now
            self.waits += 1
            self.waited_s += new_s

    @property
    def _weight_s(self) -> float:
        return max(1e-3, WINDOW_S * (1 - math.exp(-(self._last - self._start) / WINDOW_S)))

    @property
    def age_s(self) -> float:
        return self._last - self._start

    @property
    def waiting_fraction(self) -> float:
        return min(1.0, self._busy_s / self._weight_s)

    @property
    def bytes_per_s(self) -> float:
        return self._bytes / self._weight_s


class EncodingPolicy:
    """A plain value without a clock: told what was observed, asked what to send.

    Invariants: the choice changes only in `observe_batch`; WebP begins only after at least
    `WAITS_TO_SWITCH` waits; after a change there is no other for `DWELL_S` at least, but
    back from a probe of raw that made images wait.

    Args:
        threads: how many images are prepared at a time.
        webp: whether this Pillow can write WebP; without it the choice is always ``none``.
    """

    def __init__(self, threads: int = 2, *, webp: bool = True) -> None:
        self._threads = threads
        self._webp = webp
        self._choice: Choice = "none"
        self._reason = "the link keeps up"
        self._meter: _Meter | None = None
        self._prepare_s = _PREPARE_S
        self._webp_s = _PREPARE_S + _ENCODE_S
        self._ratio = _WEBP_RATIO
        self._link: float | None = None
        self._demanded_images_per_s: float | None = None
        self._probe_s = PROBE_S
        self._refusal_s = REFUSAL_S
        self._refused_until = -math.inf
        self._changed_at = -math.inf

    def __repr__(self) -> str:
        return f"EncodingPolicy({self._choice}: {self._reason})"

    def choose(self, now: float) -> Choice:
        """The encoding for images prepared now."""
        return self._choice

    def snapshot(self) -> Snapshot:
        """The choice and what led to it."""
        fraction = self._meter.waiting_fraction if self._meter else 0.0
        return Snapshot(self._choice, self._reason, fraction, self._link)

    def observe_frame(self, raw_bytes: int, sent_bytes: int, seconds: float) -> None:
        """One image was prepared: its pixels, what is sent of them, and the seconds one thread took."""
        if not raw_bytes or not sent_bytes:
            return  # hashes alone
        if sent_bytes >= raw_bytes:
            self._prepare_s += _SMOOTHING * (seconds - self._prepare_s)
        else:
            self._webp_s += _SMOOTHING * (seconds - self._webp_s)
            self._ratio += _SMOOTHING * (sent_bytes / raw_bytes - self._ratio)

    def observe_batch(self, size_bytes: int, waited_s: float, now: float) -> None:
        """A batch of ``size_bytes`` ended at ``now``; images waited behind it for ``waited_s``, 0 where none did."""
        if self._meter is None:
            if waited_s >= WAIT_S:
                self._meter = _Meter(now)  # the way is full from here on: what is answered is what it takes
            return
        meter = self._meter
        meter.add(size_bytes, waited_s, now)
        limited = meter.waiting_fraction >= WAITING_FRACTION and meter.waits >= WAITS_TO_SWITCH
        if limited:
            self._link = meter.bytes_per_s
        if self._choice == "webp":
            self._consider_raw(meter, limited, now)
        elif limited:
            self._consider_webp(meter, now)
        elif meter.age_s >= DWELL_S and meter.waiting_fraction <= IDLE_FRACTION:
            self._meter = None

    def _consider_webp(self, meter: _Meter, now: float) -> None:
        if now - self._changed_at > 2 * self._probe_s:
            self._probe_s = PROBE_S  # raw held out for long: the next try of it may come soon again
        if not (self._webp and meter.waited_s >= WAITED_TO_SWITCH_S and now >= self._refused_until):
            return
        raw_images_per_s = meter.bytes_per_s / RAW_FRAME_BYTES
        webp_images_per_s = min(self._threads / self._compressed_s, raw_images_per_s / self._ratio)
        if webp_images_per_s >= GAIN * raw_images_per_s:
            self._demanded_images_per_s = (raw_images_per_s + webp_images_per_s) / 2
            self._change("webp", "images wait for the network: trying WebP", now)

    def _consider_raw(self, meter: _Meter, limited: bool, now: float) -> None:
        images_per_s = meter.bytes_per_s / (RAW_FRAME_BYTES * self._ratio)
        if limited:
            self._judge_trial(meter, images_per_s, now)
        elif meter.age_s >= DWELL_S and meter.waiting_fraction <= IDLE_FRACTION:
            self._demanded_images_per_s = None
            self._reason = "with WebP no images wait"
            if self._link is not None and images_per_s * RAW_FRAME_BYTES * MARGIN < self._link:
                self._change("none", "the link carries the present images raw", now)
            elif meter.age_s >= self._probe_s:
                self._probe_s = min(2 * self._probe_s, LONGEST_PROBE_S)
                self._change("none", "images no longer wait: trying raw", now)

    def _judge_trial(self, meter: _Meter, images_per_s: float, now: float) -> None:
        """Once per change to WebP: more images than before, or it was not for the bytes that they waited."""
        demanded = self._demanded_images_per_s
        if demanded is None or meter.age_s < TRIAL_S:
            return
        self._demanded_images_per_s = None
        if images_per_s < demanded:
            self._refused_until = now + self._refusal_s
            self._refusal_s = min(2 * self._refusal_s, LONGEST_PROBE_S)
            self._change("none", "WebP brought no more images: it is not the network that is slow", now)
        else:
            self._reason = "the network is slow: WebP brings more images"

    @property
    def _compressed_s(self) -> float:
        """Seconds of one thread for one image with WebP: as observed, or raw's and the encoder's."""
        return max(self._webp_s, self._prepare_s + _ENCODE_S / 2)

    def _change(self, choice: Choice, reason: str, now: float) -> None:
        self._choice, self._reason, self._changed_at = choice, reason, now
        self._meter = _Meter(now) if choice == "webp" else None


def _spread(length_s: float) -> float:
    """Mean decay over an interval that ends now: 1 for none, towards 0 for a long one."""
    return 1.0 if length_s < 1e-6 else WINDOW_S / length_s * (1 - math.exp(-length_s / WINDOW_S))
