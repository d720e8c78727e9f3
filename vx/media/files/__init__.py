"""Result files: how they come into being, and what their containers need.

A clip that has its final name is complete: until then it is a part file.

    results     their names, and how they come into being
    locked      results in an encrypted ZIP file
    muxing      MP4 and Matroska
    avi         AVI, which has no times
    subtitles   cues: what is said for each second (pure)
    cuestream   cues as packets
    labels      what is said of a clip: in its file, and in the log while it is made
    progress    how far a clip is
    salvage     the job that keeps what a killed worker, or a full disk, left behind
"""
