"""`python -m postmeter` is the `postmeter` program."""

from postmeter.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
