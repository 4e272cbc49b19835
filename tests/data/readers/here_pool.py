"""Workers in this process, for tests of what they do and not of how they are started."""

from reliev3r.core.many.local import Crashed, Finished


class HerePool:
    """One slot in this process; ``crash`` names the tasks at which it pretends to die, once each."""

    ready = (0,)

    def __init__(self, job, crash=()):
        self._worker, self._crash, self.seen = job.worker(), list(crash), []

    def submit(self, slot, task):
        self._task = task
        self.seen.append(task.name)

    def events(self):
        if self._task.name in self._crash:
            self._crash.remove(self._task.name)
            return [Crashed(slot=0, reason="its worker died")]
        return [Finished(slot=0, failure=self._worker.work(self._task))]

    def close(self):
        pass
