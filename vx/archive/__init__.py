"""Recordings that other software made: where they are and when they begin.

`pattern` reads a start time out of a path (pure), `segments` finds the recordings of a time range on the disk. Nothing
here opens media, and vx keeps no index of its own: the names on the disk are the truth.
"""
