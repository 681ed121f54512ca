"""The crash campaign: the real store on disks in memory that lose power at every call.

`python -m tests.crash` runs it at length, `test_crash_images.py` in short. See campaign.py.
"""
