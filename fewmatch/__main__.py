"""`python -m fewmatch` and the `fewmatch` script."""

from fewmatch.cli.main import main

if __name__ == "__main__":
    main()
