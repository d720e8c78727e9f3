"""Live cameras: their packets on the wall clock, and what is made of them.

Clips and snapshots are written by the same means as those of recordings, but no camera holds the others up.

    camera      a connection: opens it, gives out its packets as they come
    times       when frames were taken, from what is known of that (pure)
    stamping    the packets of a connection, each with its time
    reading     packets as the archive's reader hands them over: connects, again and again
    clip        the job of a clip
    snapshot    the job of a snapshot
"""
