from __future__ import annotations

import logging

from agentd.log_limit import LogLimit
from agentd.process_identity import Process
from agentd.server.log import PeerLog, Reason, Traffic
from agentd.server.peer import Peer
from tests.server.talk import LOGGER


def test_a_cause_that_comes_from_many_processes_hides_no_other_cause(log):
    peer_log, limit = PeerLog(LOGGER, Traffic()), LogLimit()
    for pid in range(1000):
        peer_log.write(Reason.MALFORMED, Peer(1000, 100, Process(pid, 1, "boot")), "100 % wrong")
    peer_log.write(Reason.MALFORMED, Peer(1000, 100, Process(7, 1, "boot")), "wrong in another way")
    written = [record.getMessage() for record in log.records if limit.admits(record, 0.0)]
    assert len(written) < 20
    assert written[0] == "peer uid=1000 pid=0 closed: malformed message (100 % wrong)"
    assert written[-1] == "peer uid=1000 pid=7 closed: malformed message (wrong in another way)"
    assert all(record.levelno == logging.WARNING for record in log.records)
