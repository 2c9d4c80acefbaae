"""``python -m divvy.worker``."""

from divvy.worker.cli import main

if __name__ == "__main__":
    main()
