from thetaone.cli._progress import Progress
from thetaone.records import ProgressEvent


def test_a_log_gets_the_first_and_the_last_word_of_a_phase(capsys) -> None:
    with Progress() as progress:
        for done in range(5):
            progress(ProgressEvent(n_done=done, n_total=4, message=f"trial {done}"))
        progress(ProgressEvent(phase="laws", n_done=0, n_total=1, message="measuring"))
    assert capsys.readouterr().err.splitlines() == [
        "sweep: 0/4 trial 0",
        "sweep: 4/4 trial 4",
        "laws: 0/1 measuring",
    ]
