"""How a job of several phases tells its caller how far it is."""

from dataclasses import dataclass

from thetaone.records import Progress, ProgressEvent


@dataclass(frozen=True)
class Watch:
    """Tells the caller's callback, if there is one, how far each phase is."""

    progress: Progress | None

    def __call__(self, phase: str, done: int, total: int, message: str) -> None:
        if self.progress is not None:
            self.progress(ProgressEvent(phase=phase, n_done=done, n_total=total, message=message))

    def renamed(self, phase: str) -> Progress:
        """The callback of a part of the job, whose events carry this job's phase."""

        def tell(event: ProgressEvent) -> None:
            if self.progress is not None:
                self.progress(event.model_copy(update={"phase": phase}))

        return tell
