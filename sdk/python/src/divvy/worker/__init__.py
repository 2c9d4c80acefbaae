"""The Python worker: ``divvy-python-worker``, or ``python -m divvy.worker``.

``cli`` reads the options, ``service`` has the threads, ``claims`` what the coordinator is asked, ``board`` what is
held, ``slot`` the processes that run calls, ``child`` what runs in them.
"""
