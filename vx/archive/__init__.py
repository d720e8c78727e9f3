"""Recordings that other software made: where they are, when they begin, and which stretches they cover.

    pattern     reads a start time out of a path (pure)
    segments    finds the recordings of a time range on the disk
    history     says from when to when there are any

Nothing here opens media, and vx keeps no list of recordings: the names on the disk are the truth.
"""
