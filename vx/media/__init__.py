"""The worker's side: everything that opens media. Runs in a process of its own, one for each session.

Each part knows only some of those further down:

    export      the way in: one job in, its outcome out
    live        live cameras: a connection, when its packets were taken; clips and snapshots of them
    clips       clips of recordings: packets of several cameras into files
    snapshots   single frames: as JPEGs, or pages of a PDF report
    virtual     clips by the recordings' tables: samples are served from the recordings, or copied in blocks
    encoding    stages that encode what can't stay as it was recorded
    files       result files: names, containers, subtitles, encryption; what is saved of them
    packets     packets: their times, their form, and those of recordings
    painting    what is drawn into frames

Only this package imports av and PIL. What takes much of a worker's memory (reportlab, pyzipper) is imported where a job
needs it.
"""
