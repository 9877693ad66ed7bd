"""`python -m tests.standin.probes URL`: what a server does. AWS itself has its price for that."""

import asyncio
import sys

from tests.standin import invent_credentials
from tests.standin.probes import answers

if __name__ == "__main__":
    invent_credentials()
    for words, answer in asyncio.run(answers(sys.argv[1])).items():
        print(f"{words}: {answer}")  # noqa: T201  # that is what it is for
