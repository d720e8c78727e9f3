"""Packets: their times, their form, and those of recordings.

What every room goes by that handles packets: recordings' and live cameras' alike.

    plan        the arithmetic of times and sizes: three clocks, joints of recordings, what fits into a file (pure)
    nal         H.264 and H.265 as bytes: which pictures stand alone (pure)
    messages    what a clip's stages hand each other: a segment's beginning, its packets
    recording   one recording: what it holds, the way to a key frame in it
    reading     a camera's recordings, one after the other, in a thread of its own
"""
