from __future__ import annotations

from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.pipeline import DAG, Outputs, Pipeline, reported, reports, trans_nums


def test_pending_reports_are_mailed_when_the_mail_server_is_back(
    pipeline: Pipeline, outputs: Outputs, inbox: Inbox
) -> None:
    sent, batches = [], []
    pipeline.stack.stop("mail")
    try:
        for _ in range(3):
            run_id, more = pipeline.score(payments(GENUINE, FRAUD_FOR_BOTH), state="failed")
            states = pipeline.states(run_id)
            assert (states["publish"], states["reports"], states["email"]) == ("success", "success", "failed")
            sent += more
            batches.append(pipeline.counts(run_id, "plan")["batch"])
        outputs.scored(sent)
        assert not reports(inbox)
    finally:
        pipeline.stack.start("mail")

    run_id = pipeline.finish(pipeline.api.trigger(DAG))
    mails = reports(inbox)
    assert [str(mail["Subject"]).rpartition(" ")[2] for mail in mails] == batches
    assert [reported([mail]) for mail in mails] == [trans_nums([fraud]) for fraud in sent[1::2]]
    assert len({mail["Message-ID"] for mail in mails}) == 3

    pipeline.finish(pipeline.api.trigger(DAG))
    assert len(reports(inbox)) == 3
