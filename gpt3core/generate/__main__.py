"""``python -m gpt3core.generate``."""

from gpt3core import cli
from gpt3core.generate.command import main

if __name__ == "__main__":
    cli.run(main)
