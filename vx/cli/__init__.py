"""The command line: `vx serve`, and a client of a running server that uses nothing of the server's own code.

Whatever a command needs is imported when it runs.

    commands        the commands about sessions, their options and help texts; hands over to the rest
    looks           the options of what is drawn into pictures
    discovery       the commands about cameras
    administration  the commands of who runs a server
    firstconfig     the configuration that `vx init` makes
    pki             the certificates that it makes
    calling         what all client commands have: the server's options, and how a command ends
    access          how a server is talked to, and as whom
    values          what users write and what they are shown: times, sizes, access points, names of files (pure)
    client          the connection: calls, and errors of gRPC and sockets told as `ClientError` with an exit status
    export          start, follow, download, destroy; what an interrupt does
    download        one result file to disk, with resume
    report          lines, progress bars, tables, JSON
    told            the server's reports and estimates, for people and as JSON
"""
