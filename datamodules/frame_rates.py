"""The frame rate of every recording: what its file says, or data.fps."""

from datamodules.clip_set import Recording
from datamodules.outliers import in_recordings
from ddpm.errors import DataError

SAME = 0.01  # of a rate: by so much that of a file may differ from data.fps


class FrameRates:
    """The rates of recordings as they are added.

    Args:
        fps: of recordings that do not say theirs, or whose time counts 0, 1, 2 and may be the number of the frame.
    """

    def __init__(self, fps: float | None) -> None:
        self.fps = fps
        self.by_rate: dict[float, list[str]] = {}
        self._used = False  # data.fps
        self._other: dict[str, float] = {}  # files that say another rate than data.fps
        self._counting: list[str] = []

    def add(self, r: Recording) -> float:
        """The frames per second of a recording; a DataError if they are not known, or none."""
        rate = r.fps
        if r.fps_counts:
            self._counting.append(r.source)
        if rate is None or (r.fps_counts and self.fps is not None):
            rate, self._used = self.fps, True
        elif self.fps is not None and abs(rate - self.fps) > SAME * self.fps:
            self._other[r.source] = rate
        if rate is None:
            raise DataError(f"{r.source}: does not say its frames per second; set data.fps=30, or what it is")
        if not 0.1 <= rate <= 10_000:
            raise DataError(f"{r.source}: {rate} frames per second, expected 0.1 to 10000; correct the file")
        self.by_rate.setdefault(float(rate), []).append(r.source)
        return float(rate)

    def check(self, name: str, target_fps: float | None) -> None:
        """Raise a DataError if data.fps contradicts every file, or if there are several rates and no ``target_fps``."""
        if self._other and not self._used:
            source, rate = next(iter(self._other.items()))
            raise DataError(
                f"{source}: says {rate:g} frames per second, data.fps={self.fps:g} says otherwise; leave data.fps away, or, "
                f"where the file is wrong, correct its rate or remove it from the file; of a run that has it stored, type "
                f"data.fps={rate:g} for train.py and +data.fps={rate:g} for the others"
            )
        rates = self.by_rate
        if target_fps is None and rates and max(rates) - min(rates) > 1e-3 * min(rates):
            counts = ", ".join(f"{len(who)} at {rate:g}, as {who[0]}" for rate, who in sorted(rates.items())[:8])
            most = max(sorted(rates), key=lambda rate: len(rates[rate]))
            raise DataError(
                f"{name}: the recordings have several frame rates ({counts}); set data.target_fps={most:g} or another"
            )

    def notes(self, target_fps: float | None) -> list[str]:
        """What was done, a sentence each."""
        notes = []
        if self._counting and self.fps is not None:
            notes.append(
                f"{len(self._counting)} recordings: time goes in steps of 1 and counts frames, data.fps={self.fps:g} holds"
            )
        if target_fps is not None:
            changed = {rate: len(who) for rate, who in sorted(self.by_rate.items()) if rate != target_fps}
            notes += [f"{number} recordings brought from {rate:g} to {target_fps:g} fps" for rate, number in changed.items()]
        return notes

    def flaws(self, total: int) -> list[str]:
        """What should be checked, a sentence each, of ``total`` recordings."""
        flaws = []
        if self._counting and self.fps is None:
            flaws.append(
                f"{in_recordings(self._counting, total)} time goes in steps of 1, taken for seconds, 1 frame per second; if it "
                "counts frames, set data.fps=30, or what it is"
            )
        if self._other:
            said = " and ".join(f"{rate:g}" for rate in sorted(set(self._other.values()))[:5])
            flaws.append(
                f"{in_recordings(list(self._other), total)} the files say {said} frames per second, which holds and not "
                f"data.fps={self.fps:g}"
            )
        return flaws
