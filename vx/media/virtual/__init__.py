"""Clips by the recordings' tables: what is in them is computed, and no packet is looked at.

Mostly nothing is copied: only the file's header is written, and its samples are served from the recordings. Where that
can't be, they are copied in blocks. Where anything is out of the ordinary, `DoubtError` says what, and the clip is made
packet by packet (`clips.clip`). All ways show the same frames at the same times, by the rules of `packets.plan`.

    export      the way in: whether a job qualifies, and what becomes of it
    stretches   a source's recordings: which samples of each the clip shows, and when
    edges       the few pictures at an exact start or end that are encoded
    loading     the tables of recordings, a few read at a time
    index       the tables of recordings, kept so that each is read once
    files       from stretches to files: tracks on one clock, the order of the bytes
    limits      files of a limited size: which groups of pictures each takes
    joining     one source's stretches in files: when the next one begins, what is told of it
    cues        the subtitle track
    storing     the results in the session's folder: headers, and leases of the recordings
    fragments   a file that grows: what of its tracks goes into the next fragment
    copying     one source's samples, copied in blocks into such a file
"""
