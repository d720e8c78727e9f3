"""Clips of recordings: each source's pipeline, and the writer that all of them feed.

Packets are copied where they can stay as they are, otherwise they go by the stages of `encoding`. MP4 that becomes MP4
is copied without a look at its packets (`virtual.copying`).

    clip        the job: the contract of the stages, sources side by side, one file after the other
    feeding     one source's packets on their way into files: batches, or whole groups of pictures
    file        one file of a clip: tracks of several sources on one clock
    probe       the job of a rehearsal: what would become of each track
    ranges      ranges of a mask that share a key frame are joined
"""
