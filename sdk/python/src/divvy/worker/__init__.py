"""The Python worker: ``divvy-python-worker``, or ``python -m divvy.worker``.

``cli`` reads the options, ``service`` has the threads, ``claims`` the requests to the coordinator, ``board`` the held
leases, ``slot`` the processes that run calls, ``child`` the code in these processes.
"""
