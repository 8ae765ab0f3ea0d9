"""How far a run is, for people: on standard error, a bar where `tqdm` is installed, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any, Dict, Optional

#: Metrics worth a line each time they are measured.
TOLD = ("epoch_loss", "val_loss", "mrr")

#: Seconds between two lines of progress where there is no bar.
PAUSE = 5.0


class Progress:
    """Shows progress and metrics of a run as they come."""

    def __init__(self, show: bool = True) -> None:
        self._show = show
        self._tqdm = _tqdm() if show else None
        self._phase: Optional[str] = None
        self._bar: Any = None
        self._told = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def event(self, event: Dict[str, Any]) -> None:
        """Takes an event of a run."""
        if event["event"] == "progress":
            self.progress(event["phase"], event["done"], event["total"], event.get("note"))
        elif event["event"] == "metric" and event["name"] in TOLD:
            self.line(f"step {event['step']}: {event['name']} {event['value']:.4g}")

    def progress(self, phase: str, done: int, total: int, note: Optional[str] = None) -> None:
        """Work has moved on within a phase."""
        if not self._show or total == 0:
            return
        if phase != self._phase:
            self.close()
            self._phase, self._told = phase, time.monotonic()
        if self._tqdm is None:
            if done >= total or time.monotonic() - self._told >= PAUSE:
                self._told = time.monotonic()
                print(f"{phase}: {done}/{total}{', ' + note if note else ''}", file=sys.stderr)
        else:
            if self._bar is None:
                self._bar = self._tqdm(total=total, desc=phase, leave=False)
            self._bar.n = done
            self._bar.set_postfix_str(note or "", refresh=True)
        if done >= total:
            self.close()

    def transfer(self, file: str, done: int, total: int) -> None:
        """A file has moved on, in bytes."""
        self.progress(f"{file}, KB", done // 1000, total // 1000)

    def line(self, text: str) -> None:
        """A line beside the bar."""
        if self._show:
            self.clear()
            print(text, file=sys.stderr)

    def clear(self) -> None:
        """Takes the bar away until the next progress, so that others can print."""
        if self._bar is not None and hasattr(self._bar, "clear"):
            self._bar.clear()

    def close(self) -> None:
        """Ends the phase."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._phase = None


def _tqdm() -> Any:
    """`tqdm` for a notebook or a terminal; none where neither is there or it is not installed."""
    if not sys.stderr.isatty() and "ipykernel" not in sys.modules:
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm
