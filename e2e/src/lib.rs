//! Holds the tests in `tests/` and nothing else: each directory there is one suite over the finished whole.
