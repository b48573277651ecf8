"""The command ``python -m gpt3core.evals``."""

from gpt3core import cli
from gpt3core.evals import command

if __name__ == "__main__":
    cli.run(command.main)
