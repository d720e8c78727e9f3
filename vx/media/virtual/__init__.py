"""Clips without copying: only a file's header is computed, its samples are served from the recordings.

Everything is computed before anything is written. Where anything is out of the ordinary, `CopyInsteadError` says what,
and the clip is copied (`clips.clip`). Both ways show the same frames at the same times, by the rules of `packets.plan`.

    export      the way in: whether a job qualifies, and what becomes of it
    stretches   a source's recordings: which samples of each the clip shows, and when
    edges       the few pictures at an exact start or end that are encoded
    loading     the tables of recordings, a few read at a time
    index       the tables of recordings, kept so that each is read once
    files       from stretches to files: tracks on one clock, the order of the bytes
    limits      files of a limited size: which groups of pictures each takes
    cues        the subtitle track
    storing     the results in the session's folder: headers, and leases of the recordings
"""
