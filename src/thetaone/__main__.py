"""``python -m thetaone`` and ``torchrun -m thetaone``: the command line."""

from thetaone.cli.main import main

main()
