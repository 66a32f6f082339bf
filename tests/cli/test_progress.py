from thetaone.cli._progress import Progress


def test_a_log_gets_the_first_and_the_last_word_of_a_phase(capsys) -> None:
    with Progress() as progress:
        for done in range(5):
            progress("sweep", done, 4, f"trial {done}")
        progress("laws", 0, 1, "measuring")
    assert capsys.readouterr().err.splitlines() == [
        "sweep: 0/4 trial 0",
        "sweep: 4/4 trial 4",
        "laws: 0/1 measuring",
    ]
