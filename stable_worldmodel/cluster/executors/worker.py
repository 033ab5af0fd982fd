"""The child side of `LocalExecutor`: a process that runs jobs."""

from __future__ import annotations

import traceback
from multiprocessing.connection import Connection

from stable_worldmodel.cluster.executors.jobs import answer
from stable_worldmodel.pool import worker


class JobServer:
    """Answers one job at a time."""

    def __init__(self, connection: Connection):
        pass

    def run(self, function: bytes, job: bytes, again: bool) -> bytes:
        return answer(function, job, again)

    def failure(self, error: BaseException) -> worker.Failure:
        """Of what is no Exception, such as SystemExit: the job counts as lost with its worker."""
        return worker.Failure(0, traceback.format_exc(), None)


def serve(connection: Connection, lifeline: int) -> None:
    """Run jobs until the parent closes the pipe, or dies."""
    worker.serve(connection, lifeline, JobServer)
