"""Snapshots: the very frame that a viewer would see at a time, with what is known of it.

Frames of live cameras come from `live.snapshot`, and go into files by the same way.

    snapshot    the job, of recordings: finds each source's frame
    shots       frames on their way into files, wherever they are from
    jpeg        a frame as a JPEG
    report      pages of a PDF document
"""
