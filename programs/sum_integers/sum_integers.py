"""Prints the sum of the integers from the first argument up to, but not including, the second."""

import sys


def main() -> int:
    try:
        first, beyond = (int(text) for text in sys.argv[1:])
    except ValueError:
        print("usage: sum_integers.py FROM TO", file=sys.stderr)
        return 2
    print(sum(range(first, beyond)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
